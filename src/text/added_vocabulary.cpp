#include "text/added_vocabulary.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

// \w of Rust's regex crate.
constexpr const char* kWordCharacter = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}])";

// Where the whitespace begins that ends at `end`.
size_t space_before(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t last = last_char(text, end);
    if (!is_whitespace(code_point_at(text, last))) {
      break;
    }
    end = last;
  }
  return end;
}

size_t space_after(std::string_view text, size_t begin) {
  while (begin < text.size() && is_whitespace(code_point_at(text, begin))) {
    begin += char_length(text[begin]);
  }
  return begin;
}

}  // namespace

AddedToken added_token(const Fields& fields) {
  return {fields.string("content"), fields.boolean("single_word"), fields.boolean("lstrip"),
          fields.boolean("rstrip"), fields.boolean("normalized"),  fields.boolean("special")};
}

void AddedVocabulary::add(const std::vector<AddedToken>& tokens, const Model& model, const Normalizer* normalizer) {
  auto next_id = static_cast<uint32_t>(model.size());
  if (!tokens_.empty() && (tokens_.rbegin()->first >= next_id || next_id == 0)) {
    next_id = tokens_.rbegin()->first + 1;
  }
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) {
      continue;
    }
    std::optional<uint32_t> id = find(token.content);
    if (id && tokens_.at(*id) == token) {
      continue;
    }
    id = id ? id : model.token_to_id(token.content);
    id = id ? id : next_id++;
    if (token.normalized && normalizer != nullptr) {
      std::string form = token.content;
      normalizer->normalize(form);
      if (form != token.content) {
        normalized_[*id] = std::move(form);
      }
    }
    if (token.single_word && !word_character_) {
      word_character_ = Regex::pattern(kWordCharacter, "a word character");
    }
    ids_[token.content] = *id;
    if (token.special) {
      special_.insert(token.content);
    }
    tokens_[*id] = token;
  }
  rebuild();
}

void AddedVocabulary::rebuild() {
  plain_ = {};
  after_normalizer_ = {};
  for (const auto& [id, token] : tokens_) {
    const auto form = normalized_.find(id);
    const std::string& text = token.normalized && form != normalized_.end() ? form->second : token.content;
    (token.normalized ? after_normalizer_ : plain_).insert(text, id);
  }
}

bool AddedVocabulary::is_single_word(std::string_view text, size_t begin, size_t end) const {
  const auto is_word = [&](size_t at) {
    return word_character_->segments(text.substr(at, char_length(text[at]))).front().match;
  };
  return !(begin > 0 && is_word(last_char(text, begin))) && !(end < text.size() && is_word(end));
}

void AddedVocabulary::find_tokens(std::string text, bool start, const TokenTrie& trie, std::vector<Piece>& out) const {
  size_t covered = 0;
  size_t from = 0;
  const std::string_view all = text;
  const auto emit_text = [&](size_t end) {
    if (covered < end) {
      out.push_back({std::string(all.substr(covered, end - covered)), Piece::kText, start && covered == 0});
    }
  };
  while (const std::optional<TokenTrie::Match> match = trie.find(all, from)) {
    from = match->end;
    const AddedToken& token = tokens_.at(match->value);
    size_t begin = match->begin;
    size_t end = match->end;
    if (split_special_tokens_ && special_.contains(token.content)) {
      continue;
    }
    if (token.single_word && !is_single_word(all, begin, end)) {
      continue;
    }
    if (token.lstrip) {
      begin = std::max(space_before(all, begin), covered);
    }
    if (token.rstrip) {
      end = space_after(all, end);
    }
    emit_text(begin);
    out.push_back({"", static_cast<int64_t>(match->value)});
    covered = end;
  }
  if (covered == 0 && !text.empty()) {
    out.push_back({std::move(text), Piece::kText, start});
  } else {
    emit_text(all.size());
  }
}

std::vector<Piece> AddedVocabulary::split(const std::string& text, const Normalizer* normalizer) const {
  std::vector<Piece> found;
  find_tokens(text, true, plain_, found);
  std::vector<Piece> out;
  for (Piece& piece : found) {
    if (piece.id != Piece::kText) {
      out.push_back(std::move(piece));
      continue;
    }
    const bool keeps_start = normalizer == nullptr || normalizer->normalize(piece.text);
    find_tokens(std::move(piece.text), piece.start && keeps_start, after_normalizer_, out);
  }
  return out;
}

std::optional<uint32_t> AddedVocabulary::find(std::string_view token) const {
  const auto found = ids_.find(std::string(token));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::string_view> AddedVocabulary::token(int64_t id) const {
  if (id < 0 || id > 0xFFFFFFFF) {
    return std::nullopt;
  }
  const auto key = static_cast<uint32_t>(id);
  if (const auto form = normalized_.find(key); form != normalized_.end()) {
    return form->second;
  }
  const auto found = tokens_.find(key);
  return found == tokens_.end() ? std::nullopt : std::optional<std::string_view>(found->second.content);
}

bool AddedVocabulary::is_special(std::string_view token) const {
  return special_.contains(std::string(token));
}

size_t AddedVocabulary::new_tokens(const Model& model) const {
  return static_cast<size_t>(
      std::count_if(ids_.begin(), ids_.end(), [&](const auto& entry) { return !model.token_to_id(entry.first); }));
}

}  // namespace shardpipe::text
