#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::text {

/// Tokens and their ids, both ways. Filled once (add, then index), then read by any number of threads. Flat arrays: a
/// table of 50,000 tokens is built in a few milliseconds at every start of the program.
class Vocabulary {
 public:
  /// A token that is there already gets the new id.
  void add(std::string_view token, uint32_t id);
  /// Prepares token(); call after the last add().
  void index();

  size_t size() const { return entries_.size(); }
  /// Bytes of the longest token.
  size_t longest() const { return longest_; }
  std::optional<uint32_t> find(std::string_view token) const;
  /// The token of an id; of several tokens with one id the last that was added.
  std::optional<std::string_view> token(int64_t id) const;

 private:
  struct Entry {
    size_t begin;  // in characters_
    size_t size;
    uint32_t id;
  };
  std::string_view text(const Entry& entry) const { return {characters_.data() + entry.begin, entry.size}; }
  /// Where in slots_ the token is or belongs.
  size_t slot(std::string_view token) const;
  void grow();

  size_t longest_ = 0;
  std::string characters_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> slots_;  // open addressing: 0 or 1 + the entry's index; a power of two long
  std::vector<uint32_t> by_id_;  // entries in the order of their ids
};

}  // namespace shardpipe::text
