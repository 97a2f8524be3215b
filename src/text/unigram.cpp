#include "text/unigram.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

// What an unknown character scores below the worst token; sentencepiece's kUnkPenalty.
constexpr double kUnknownPenalty = 10.0;

}  // namespace

Unigram::Unigram(const Fields& fields, TokenizerFile& file)
    : where_(fields.where()), scores_(std::move(file.scores)), byte_fallback_(fields.boolean("byte_fallback", false)) {
  if (!file.has_scores) {
    throw_input("{}.vocab must be an array of [token, score]", where_);
  }
  if (fields.has("unk_id")) {
    unknown_ = fields.id("unk_id");
    if (unknown_ >= scores_.size()) {
      throw_input("{}.unk_id is {}, the vocabulary has {} tokens", where_, unknown_, scores_.size());
    }
  }
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < scores_.size(); ++id) {
    ids_.add(scores_.token(id), static_cast<uint32_t>(id));
    lowest = std::min(lowest, scores_.score(id));
  }
  unknown_score_ = lowest - kUnknownPenalty;
  for (size_t id = 0; id < scores_.size(); ++id) {
    if (ids_.find(scores_.token(id)) == id) {
      sorted_.push_back(static_cast<uint32_t>(id));
    }
  }
  std::sort(
      sorted_.begin(), sorted_.end(), [&](uint32_t a, uint32_t b) { return scores_.token(a) < scores_.token(b); });
}

std::optional<std::string_view> Unigram::id_to_token(int64_t id) const {
  return id >= 0 && static_cast<uint64_t>(id) < scores_.size() ? std::optional(scores_.token(static_cast<size_t>(id)))
                                                               : std::nullopt;
}

uint32_t Unigram::unknown() const {
  if (unknown_ == kNone) {
    throw_input("{} has no unk_id, but the text needs it", where_);
  }
  return unknown_;
}

std::vector<Unigram::Step> Unigram::best_steps(std::string_view piece) const {
  std::vector<Step> steps(piece.size() + 1);
  // Of equal scores the step found first stays: the one that begins first.
  const auto offer = [&](size_t begin, size_t end, double score, uint32_t id) {
    Step& step = steps[end];
    const double total = score + steps[begin].score;
    if (!step.reached || total > step.score) {
      step = {total, begin, id, true};
    }
  };
  for (size_t begin = 0; begin < piece.size();) {
    const size_t length = char_length(piece[begin]);
    bool single = false;
    // The tokens that share the bytes read so far are [first, last) of sorted_.
    auto first = sorted_.begin();
    auto last = sorted_.end();
    for (size_t end = begin + 1; end <= piece.size() && first != last; ++end) {
      const size_t depth = end - begin;
      const auto byte = static_cast<unsigned char>(piece[end - 1]);
      const auto byte_of = [&](uint32_t id) {
        const std::string_view token = scores_.token(id);
        return token.size() < depth ? -1 : static_cast<int>(static_cast<unsigned char>(token[depth - 1]));
      };
      first = std::lower_bound(first, last, byte, [&](uint32_t id, int value) { return byte_of(id) < value; });
      last = std::upper_bound(first, last, byte, [&](int value, uint32_t id) { return value < byte_of(id); });
      if (first != last && scores_.token(*first).size() == depth) {
        offer(begin, end, scores_.score(*first), *first);
        single = single || depth == length;
      }
    }
    if (!single) {
      // Only where it is the better one must there be an unknown token.
      const Step& there = steps[begin + length];
      if (!there.reached || unknown_score_ + steps[begin].score > there.score) {
        offer(begin, begin + length, unknown_score_, unknown());
      }
    }
    begin += length;
  }
  return steps;
}

void Unigram::append_part(std::string_view part, std::vector<int64_t>& ids) const {
  if (const std::optional<uint32_t> id = ids_.find(part)) {
    ids.push_back(*id);
    return;
  }
  if (byte_fallback_) {
    const size_t before = ids.size();
    for (const char byte : part) {
      const std::optional<uint32_t> id =
          ids_.find(fmt::format("<0x{:02X}>", static_cast<unsigned>(static_cast<unsigned char>(byte))));
      if (!id) {
        ids.resize(before);
        break;
      }
      ids.push_back(*id);
    }
    if (ids.size() > before) {
      return;
    }
  }
  ids.push_back(unknown());
}

void Unigram::tokenize(std::string_view piece, std::vector<int64_t>& ids) const {
  const std::vector<Step> steps = best_steps(piece);
  std::vector<std::string_view> parts;  // last one first
  bool fuses = false;
  for (size_t end = piece.size(); end > 0; end = steps[end].begin) {
    const Step& step = steps[end];
    const bool unknown = step.id == unknown_;
    if (unknown && fuses) {
      parts.back() = {piece.data() + step.begin, parts.back().size() + end - step.begin};
    } else {
      parts.push_back(piece.substr(step.begin, end - step.begin));
    }
    fuses = unknown;
  }
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    append_part(*part, ids);
  }
}

}  // namespace shardpipe::text
