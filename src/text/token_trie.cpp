#include "text/token_trie.h"

#include <algorithm>

namespace shardpipe::text {
namespace {

template <typename Children>
auto lower_bound(Children& children, unsigned char byte) {
  return std::lower_bound(children.begin(), children.end(), byte, [](const auto& entry, unsigned char value) {
    return entry.first < value;
  });
}

}  // namespace

const TokenTrie::Node* TokenTrie::child(const Node& node, unsigned char byte) const {
  const auto found = lower_bound(node.children, byte);
  return found != node.children.end() && found->first == byte ? &nodes_[found->second] : nullptr;
}

void TokenTrie::insert(std::string_view text, uint32_t value) {
  if (text.empty()) {
    return;
  }
  uint32_t at = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const auto found = lower_bound(nodes_[at].children, byte);
    if (found != nodes_[at].children.end() && found->first == byte) {
      at = found->second;
    } else {
      const auto next = static_cast<uint32_t>(nodes_.size());
      nodes_[at].children.insert(found, {byte, next});
      nodes_.emplace_back();
      at = next;
    }
  }
  if (!nodes_[at].value) {
    nodes_[at].value = value;
  }
  starts_[static_cast<unsigned char>(text.front())] = true;
}

std::optional<TokenTrie::Match> TokenTrie::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) {
      continue;
    }
    std::optional<Match> longest;
    const Node* node = nodes_.data();
    for (size_t i = begin; i < text.size(); ++i) {
      node = child(*node, static_cast<unsigned char>(text[i]));
      if (node == nullptr) {
        break;
      }
      if (node->value) {
        longest = Match{begin, i + 1, *node->value};
      }
    }
    if (longest) {
      return longest;
    }
  }
  return std::nullopt;
}

}  // namespace shardpipe::text
