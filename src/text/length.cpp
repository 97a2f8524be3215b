#include "text/length.h"

#include "base/error.h"

namespace shardpipe::text {
namespace {

// A padding longer than this is a damaged file, not a context length.
constexpr uint64_t kMaxPadding = 1 << 24;

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

void Truncation::apply(Encoding& ids, uint64_t added) const {
  if (max_length < added) {
    throw_input("{}.max_length is {}, but {} special tokens are added", where, max_length, added);
  }
  const uint64_t limit = max_length - added;
  if (ids.size() <= limit) {
    return;
  }
  if (limit == 0) {
    ids.clear();
    return;
  }
  if (strategy == Strategy::only_second) {
    throw_input("{}.strategy is OnlySecond, but there is no second text to truncate", where);
  }
  if (stride >= limit) {
    throw_input("{}.stride is {}, must be below the {} tokens that are left for the text", where, stride, limit);
  }
  if (left) {
    ids.erase(ids.begin(), ids.end() - static_cast<ptrdiff_t>(limit));
  } else {
    ids.resize(limit);
  }
}

void Padding::apply(Encoding& ids) const {
  uint64_t target = length == 0 ? ids.size() : length;
  if (multiple_of > 0 && target % multiple_of > 0) {
    target += multiple_of - target % multiple_of;
  }
  if (target > ids.size()) {
    ids.insert(left ? ids.begin() : ids.end(), target - ids.size(), id);
  }
}

Truncation make_truncation(const Fields& fields) {
  const std::string name = fields.string("strategy");
  Truncation::Strategy strategy = Truncation::Strategy::longest_first;
  if (name == "OnlyFirst") {
    strategy = Truncation::Strategy::only_first;
  } else if (name == "OnlySecond") {
    strategy = Truncation::Strategy::only_second;
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
      fields.id("pad_id")};
  if (padding.length > kMaxPadding || padding.multiple_of > kMaxPadding) {
    throw_input("{} is above {} tokens", fields.where(), kMaxPadding);
  }
  return padding;
}

}  // namespace shardpipe::text
