#pragma once

#include <functional>
#include <optional>

#include "text/jinja_value.h"

namespace shardpipe::text::jinja {

/// A generator of what `step` makes from an iterator over `source`, which is opened at the first read.
using Step = std::function<std::optional<Value>(Iterator& source)>;
Value generate(const Value& source, Step step);

/// Reads the attribute "a.b.0" of an item, whole numbers as positions; none: the item itself.
class AttributeGetter {
 public:
  /// `ignores_case`: texts are given in lower case. `otherwise`: in place of undefined.
  explicit AttributeGetter(
      const Value& attribute, bool ignores_case = false, std::optional<Value> otherwise = std::nullopt);
  Value operator()(Value item) const;

 private:
  Values parts_;
  bool ignores_case_;
  std::optional<Value> otherwise_;
};

}  // namespace shardpipe::text::jinja
