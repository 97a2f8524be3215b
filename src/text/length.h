#pragma once

#include <optional>

#include "text/fields.h"
#include "text/post_processor.h"

namespace shardpipe::text {

/// The "truncation" of a tokenizer file, for a single text.
struct Truncation {
  uint64_t max_length;  // of the result, special tokens included
  uint64_t stride;      // only checked: overlapping parts are not returned
  bool left;            // cut off the beginning rather than the end
  enum class Strategy { longest_first, only_first, only_second } strategy;
  std::string where;

  /// Cuts an encoding that will get `added` special tokens. Throws Error(input) where the package refuses.
  void apply(Encoding& ids, uint64_t added) const;
};

/// The "padding" of a tokenizer file, for a single text.
struct Padding {
  uint64_t length;       // 0: the text's own length
  uint64_t multiple_of;  // 0: any length
  bool left;
  int64_t id;

  void apply(Encoding& ids) const;
};

/// Throw Error(input) on bad fields.
Truncation make_truncation(const Fields& fields);
Padding make_padding(const Fields& fields);

}  // namespace shardpipe::text
