#pragma once

#include <optional>
#include <span>

#include "text/encoding.h"
#include "text/fields.h"

namespace shardpipe::text {

/// Which text of a pair loses tokens: the longer one, or always the same. A single text is the first one.
enum class TruncationStrategy { longest_first, only_first, only_second };

/// How texts that are too long are cut.
struct Truncation {
  uint64_t max_length;  // of the result, special tokens included
  uint64_t stride = 0;  // only checked: overlapping parts are not returned
  bool left = false;    // cut off the beginning rather than the end
  TruncationStrategy strategy = TruncationStrategy::longest_first;
  std::string where = "truncation";  // for messages

  /// Cuts one or two encodings that will get `added` special tokens together. Throws Error(input) where the package
  /// refuses.
  void apply(std::span<Encoding> encodings, uint64_t added) const;
};

/// How encodings are filled up to one length.
struct Padding {
  uint64_t length = 0;       // 0: that of the longest
  uint64_t multiple_of = 0;  // 0: any length
  bool left = false;
  int64_t id = 0;
  int64_t type_id = 0;

  /// Encodings that are longer than `length` stay so.
  void apply(std::span<Encoding> encodings) const;
};

/// The "truncation" and "padding" of a tokenizer file. Throw Error(input) on bad fields.
Truncation make_truncation(const Fields& fields);
Padding make_padding(const Fields& fields);

}  // namespace shardpipe::text
