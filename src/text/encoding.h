#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace shardpipe::text {

/// A text or a pair of texts as a model takes it: four numbers for each token.
struct Encoding {
  std::vector<int64_t> ids;
  std::vector<int64_t> type_ids;             // which text of a pair the token is of, as the post-processor says
  std::vector<int64_t> attention_mask;       // 0: padding
  std::vector<int64_t> special_tokens_mask;  // 1: not of the text, but put around it

  /// Ids with the same other numbers.
  static Encoding of(std::vector<int64_t> ids, int64_t type_id, bool special);

  size_t size() const { return ids.size(); }
  void append(const Encoding& other);
  /// Keeps [begin, end).
  void cut(size_t begin, size_t end);
};

}  // namespace shardpipe::text
