#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::text {

/// The vocabulary of a Unigram model: tokens with their scores, ids in order.
class ScoreList {
 public:
  /// `exact` is the score that was written, `rounded` the number that the tokenizers package reads.
  void add(std::string_view token, double exact, double rounded);
  /// Reading with Python rather than the package: score() is the exact one.
  void use_exact() { exact_ = true; }

  size_t size() const { return entries_.size(); }
  std::string_view token(size_t id) const { return {characters_.data() + entries_[id].begin, entries_[id].size}; }
  double score(size_t id) const { return exact_ ? entries_[id].exact : entries_[id].rounded; }

 private:
  struct Entry {
    size_t begin;  // in characters_
    size_t size;
    double exact;
    double rounded;
  };
  std::string characters_;
  std::vector<Entry> entries_;
  bool exact_ = false;
};

/// The number that the crate serde_json reads (without its feature float_roundtrip): digits as an integer, times or
/// divided by a power of ten, so that the last bit may differ. `text` is a number in JSON's syntax.
double serde_number(std::string_view text);

}  // namespace shardpipe::text
