#pragma once

#include <memory>
#include <string>

#include "text/fields.h"

namespace shardpipe::text {

/// The first step of a tokenizer: changes the text before it is split.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// Valid UTF-8 in, valid UTF-8 out. Returns whether the result begins with what became of the text's first character:
  /// false when that one was dropped (a pre-tokenizer may ask for the start of the text). Unlike the package we do not
  /// follow the further characters that a first one became.
  virtual bool normalize(std::string& text) const = 0;
};

/// The normalizer that a "normalizer" object describes. Throws Error(usage) for a type that is not supported,
/// Error(input) for bad fields.
std::unique_ptr<const Normalizer> make_normalizer(const Fields& fields);

}  // namespace shardpipe::text
