#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace shardpipe::text {

/// A set of strings, found in a text leftmost first and longest first.
class TokenTrie {
 public:
  struct Match {
    size_t begin;
    size_t end;
    uint32_t value;
  };

  /// An empty string is never found; one that is there already keeps its value.
  void insert(std::string_view text, uint32_t value);
  bool empty() const { return nodes_.size() == 1; }
  /// The first match that begins at or after `from`.
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> children;  // sorted by byte
    std::optional<uint32_t> value;
  };
  const Node* child(const Node& node, unsigned char byte) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<bool, 256> starts_{};
};

}  // namespace shardpipe::text
