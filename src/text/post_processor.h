#pragma once

#include <memory>
#include <vector>

#include "text/encoding.h"
#include "text/fields.h"

namespace shardpipe::text {

/// Puts the special tokens around one text, or a pair.
class PostProcessor {
 public:
  virtual ~PostProcessor() = default;
  /// Number of ids that process() adds to one text (or to a pair).
  virtual size_t added_tokens(bool pair) const = 0;
  /// Takes the encodings of one or two texts (of types 0 and 1), returns the parts that joined make the result.
  virtual std::vector<Encoding> process(std::vector<Encoding> encodings, bool add_special_tokens) const = 0;
};

/// The post-processor that a "post_processor" object describes. Throws Error(usage) for a type that is not supported,
/// Error(input) for bad fields.
std::unique_ptr<const PostProcessor> make_post_processor(const Fields& fields);

}  // namespace shardpipe::text
