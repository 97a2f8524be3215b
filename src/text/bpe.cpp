#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

std::string optional_string(const Fields& fields, const char* name) {
  return fields.has(name) ? fields.string(name) : "";
}

// Dropout makes the same text come out differently each time.
void refuse_dropout(const Fields& fields) {
  if (!fields.has("dropout")) {
    return;
  }
  const Json& dropout = fields.get("dropout");
  const double value = dropout.is_number() ? dropout.get<double>() : -1.0;
  if (!(value >= 0.0 && value <= 1.0)) {
    throw_input("{}.dropout must be a number from 0 to 1, is {}", fields.where(), one_line(dropout.dump()));
  }
  if (value > 0.0) {
    throw_usage("{}.dropout is {}, only 0 is supported", fields.where(), value);
  }
}

uint64_t pair_key(uint32_t left, uint32_t right) {
  return static_cast<uint64_t>(left) << 32 | right;
}

}  // namespace

Bpe::Merges::Merges(size_t count) {
  const size_t size = std::bit_ceil(std::max<size_t>(2, 2 * count));
  slots_.assign(size, {0, {0, 0}, false});
  shift_ = 64 - std::countr_zero(size);
}

size_t Bpe::Merges::slot(uint64_t key) const {
  size_t i = (key * 0x9E3779B97F4A7C15) >> shift_;
  while (slots_[i].used && slots_[i].key != key) {
    i = (i + 1) & (slots_.size() - 1);
  }
  return i;
}

void Bpe::Merges::set(uint32_t left, uint32_t right, Merge merge) {
  const uint64_t key = pair_key(left, right);
  slots_[slot(key)] = {key, merge, true};
}

const Bpe::Merge* Bpe::Merges::find(uint32_t left, uint32_t right) const {
  const Slot& found = slots_[slot(pair_key(left, right))];
  return found.used ? &found.merge : nullptr;
}

Bpe::Merges Bpe::make_merges(
    const Vocabulary& vocabulary, const MergeList& list, size_t prefix_size, const Fields& fields) {
  Merges merges(list.pairs().size());
  uint32_t rank = 0;
  for (const MergeList::Pair& pair : list.pairs()) {
    const std::string_view left = list.left(pair);
    const std::string_view right = list.right(pair);
    const auto id = [&](std::string_view token) {
      const std::optional<uint32_t> found = vocabulary.find(token);
      if (!found) {
        throw_input("{}.merges[{}] needs the token {:?}, which is not in the vocabulary", fields.where(), rank, token);
      }
      return *found;
    };
    const uint32_t left_id = id(left);
    const uint32_t right_id = id(right);
    if (right.size() < prefix_size) {
      throw_input("{}.merges[{}] joins {:?}, shorter than continuing_subword_prefix", fields.where(), rank, right);
    }
    const uint32_t joined =
        prefix_size == 0 ? id(list.both(pair)) : id(std::string(left) + std::string(right.substr(prefix_size)));
    merges.set(left_id, right_id, {rank, joined});
    ++rank;
  }
  return merges;
}

Bpe::Bpe(const Fields& fields, TokenizerFile& file)
    : where_(fields.where()),
      vocabulary_(std::move(file.vocabulary)),
      prefix_(optional_string(fields, "continuing_subword_prefix")),
      suffix_(optional_string(fields, "end_of_word_suffix")),
      fuse_unknown_(fields.boolean("fuse_unk", false)),
      byte_fallback_(fields.boolean("byte_fallback", false)),
      ignore_merges_(fields.boolean("ignore_merges", false)),
      merges_(make_merges(vocabulary_, file.merges, prefix_.size(), fields)) {
  refuse_dropout(fields);
  if (!file.has_vocabulary || !file.has_merges) {
    throw_input("{} has no {}", where_, file.has_vocabulary ? "merges" : "vocab");
  }
  if (fields.has("unk_token")) {
    unknown_ = fields.string("unk_token");
  }
}

bool Bpe::byte_symbols(std::string_view character, std::vector<uint32_t>& ids) const {
  std::vector<uint32_t> found;
  for (const char byte : character) {
    const std::optional<uint32_t> id =
        vocabulary_.find(fmt::format("<0x{:02X}>", static_cast<unsigned>(static_cast<unsigned char>(byte))));
    if (!id) {
      return false;
    }
    found.push_back(*id);
  }
  ids.insert(ids.end(), found.begin(), found.end());
  return true;
}

std::vector<Bpe::Symbol> Bpe::symbols(std::string_view piece) const {
  std::vector<uint32_t> ids;
  ids.reserve(piece.size());
  constexpr int64_t kNone = -1;
  int64_t unknown = kNone;  // one that is not written yet: the next may fuse with it
  const auto write_unknown = [&] {
    if (unknown != kNone) {
      ids.push_back(static_cast<uint32_t>(unknown));
      unknown = kNone;
    }
  };
  std::string decorated;
  for (size_t i = 0; i < piece.size();) {
    const size_t length = char_length(piece[i]);
    std::string_view character = piece.substr(i, length);
    const bool first = i == 0;
    i += length;
    const bool last = i == piece.size();
    if ((!first && !prefix_.empty()) || (last && !suffix_.empty())) {
      decorated = (first ? "" : prefix_) + std::string(character) + (last ? suffix_ : "");
      character = decorated;
    }
    if (const std::optional<uint32_t> id = vocabulary_.find(character)) {
      write_unknown();
      ids.push_back(*id);
    } else if (byte_fallback_ && byte_symbols(character, ids)) {
      // As in the package a waiting unknown token stays behind the bytes.
    } else if (unknown_ && !(fuse_unknown_ && unknown != kNone)) {
      write_unknown();
      const std::optional<uint32_t> unknown_id = vocabulary_.find(*unknown_);
      if (!unknown_id) {
        throw_input("{}.unk_token {:?} is not in the vocabulary, but the text needs it", where_, *unknown_);
      }
      unknown = *unknown_id;
    }
  }
  write_unknown();
  std::vector<Symbol> out(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    out[i] = {ids[i], at - 1, i + 1 < ids.size() ? at + 1 : -1, false};
  }
  return out;
}

void Bpe::merge(std::vector<Symbol>& symbols) const {
  struct Candidate {
    uint32_t rank;
    uint32_t id;
    int64_t position;  // of the left symbol
  };
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  std::vector<Candidate> queue;
  const auto candidate = [&](int64_t left, int64_t right) -> std::optional<Candidate> {
    const Merge* found = merges_.find(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    return found == nullptr ? std::nullopt : std::optional(Candidate{found->rank, found->id, left});
  };
  const auto push = [&](int64_t left, int64_t right) {
    if (const auto found = candidate(left, right)) {
      queue.push_back(*found);
      std::push_heap(queue.begin(), queue.end(), later);
    }
  };
  for (size_t i = 1; i < symbols.size(); ++i) {
    if (const auto found = candidate(static_cast<int64_t>(i) - 1, static_cast<int64_t>(i))) {
      queue.push_back(*found);
    }
  }
  std::make_heap(queue.begin(), queue.end(), later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const Candidate top = queue.back();
    queue.pop_back();
    Symbol& left = symbols[static_cast<size_t>(top.position)];
    if (left.joined || left.next < 0) {
      continue;
    }
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    // The pair may have changed since. As in the package it is the merge's result that must still be the same.
    const Merge* found = merges_.find(left.id, right.id);
    if (found == nullptr || found->id != top.id) {
      continue;
    }
    left.id = top.id;
    left.next = right.next;
    right.joined = true;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = top.position;
    }
    if (left.previous >= 0) {
      push(left.previous, top.position);
    }
    if (left.next >= 0) {
      push(top.position, left.next);
    }
  }
}

void Bpe::tokenize(std::string_view piece, std::vector<int64_t>& ids) const {
  if (piece.empty()) {
    return;
  }
  if (ignore_merges_) {
    if (const std::optional<uint32_t> id = vocabulary_.find(piece)) {
      ids.push_back(*id);
      return;
    }
  }
  std::vector<Symbol> word = symbols(piece);
  merge(word);
  for (const Symbol& symbol : word) {
    if (!symbol.joined) {
      ids.push_back(symbol.id);
    }
  }
}

}  // namespace shardpipe::text
