#include "text/length.h"

#include <algorithm>

#include "base/error.h"

namespace shardpipe::text {
namespace {

// A padding longer than this is a damaged file, not a context length.
constexpr uint64_t kMaxPadding = 1 << 20;

bool is_left(const Fields& fields, bool required) {
  if (!required && !fields.has("direction")) {
    return false;
  }
  const std::string direction = fields.string("direction");
  if (direction != "Left" && direction != "Right") {
    throw_input("{}.direction must be \"Left\" or \"Right\", is {:?}", fields.where(), direction);
  }
  return direction == "Left";
}

}  // namespace

void Truncation::apply(std::span<Encoding> encodings, uint64_t added) const {
  if (max_length < added) {
    throw_input("{}.max_length is {}, but {} special tokens are added", where, max_length, added);
  }
  const uint64_t limit = max_length - added;
  const auto cut = [&](Encoding& encoding, uint64_t size) {
    if (size >= encoding.size()) {
      return;
    }
    if (size > 0 && stride >= size) {
      throw_input("{}.stride is {}, must be below the {} tokens that are left for the text", where, stride, size);
    }
    encoding.cut(left ? encoding.size() - size : 0, left ? encoding.size() : size);
  };
  uint64_t total = 0;
  for (const Encoding& encoding : encodings) {
    total += encoding.size();
  }
  if (total <= limit) {
    return;
  }
  if (limit == 0) {
    for (Encoding& encoding : encodings) {
      cut(encoding, 0);
    }
    return;
  }
  if (strategy == TruncationStrategy::longest_first) {
    if (encodings.size() == 1) {
      return cut(encodings[0], limit);
    }
    // The shorter text keeps all as long as it takes less than half.
    const bool swapped = encodings[0].size() > encodings[1].size();
    const uint64_t shorter = encodings[swapped ? 1 : 0].size();
    const uint64_t half = limit / 2;
    const bool keeps = shorter <= half;
    cut(encodings[swapped ? 1 : 0], keeps ? shorter : half);
    cut(encodings[swapped ? 0 : 1], keeps ? limit - shorter : limit - half);
    return;
  }
  const size_t which = strategy == TruncationStrategy::only_first ? 0 : 1;
  const char* name = which == 0 ? "OnlyFirst" : "OnlySecond";
  if (which >= encodings.size()) {
    throw_input("{}.strategy is OnlySecond, but there is no second text to truncate", where);
  }
  if (encodings[which].size() <= total - limit) {
    throw_input(
        "{}.strategy is {}, but that text has {} tokens and {} must go", where, name, encodings[which].size(),
        total - limit);
  }
  cut(encodings[which], encodings[which].size() - (total - limit));
}

void Padding::apply(std::span<Encoding> encodings) const {
  uint64_t target = length;
  if (length == 0) {
    for (const Encoding& encoding : encodings) {
      target = std::max<uint64_t>(target, encoding.size());
    }
  }
  if (multiple_of > 0 && target % multiple_of > 0) {
    target += multiple_of - target % multiple_of;
  }
  for (Encoding& encoding : encodings) {
    if (target <= encoding.size()) {
      continue;
    }
    Encoding pad = Encoding::of(std::vector<int64_t>(target - encoding.size(), id), type_id, true);
    pad.attention_mask.assign(pad.size(), 0);
    if (left) {
      pad.append(encoding);
      encoding = std::move(pad);
    } else {
      encoding.append(pad);
    }
  }
}

Truncation make_truncation(const Fields& fields) {
  const std::string name = fields.string("strategy");
  TruncationStrategy strategy = TruncationStrategy::longest_first;
  if (name == "OnlyFirst") {
    strategy = TruncationStrategy::only_first;
  } else if (name == "OnlySecond") {
    strategy = TruncationStrategy::only_second;
  } else if (name != "LongestFirst") {
    throw_input("{}.strategy {:?} is unknown", fields.where(), name);
  }
  return {fields.size("max_length"), fields.size("stride"), is_left(fields, false), strategy, fields.where()};
}

Padding make_padding(const Fields& fields) {
  const Json& strategy = fields.get("strategy");
  const bool fixed = strategy.is_object();
  if (!fixed && strategy != "BatchLongest") {
    throw_input("{}.strategy must be \"BatchLongest\" or {{\"Fixed\": length}}", fields.where());
  }
  const Padding padding{
      fixed ? fields.object("strategy").size("Fixed") : 0,
      fields.has("pad_to_multiple_of") ? fields.size("pad_to_multiple_of") : 0, is_left(fields, true),
      fields.id("pad_id"), fields.has("pad_type_id") ? fields.id("pad_type_id") : 0};
  if (padding.length > kMaxPadding || padding.multiple_of > kMaxPadding) {
    throw_input("{} is above {} tokens", fields.where(), kMaxPadding);
  }
  return padding;
}

}  // namespace shardpipe::text
