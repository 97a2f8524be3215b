#pragma once

// Strict access to the JSON of an archive: every accessor throws SortedJson::exception when the kind is another.
#include <cstdint>
#include <string>
#include <utility>

#include "base/json.h"

namespace shardpipe::pt2 {

using Document = SortedJson;

inline const std::string& text_of(const Document& json) {
  return json.get_ref<const std::string&>();
}
inline int64_t integer_of(const Document& json) {
  return json.get_ref<const Document::number_integer_t&>();
}
inline bool boolean_of(const Document& json) {
  return json.get_ref<const bool&>();
}
inline const Document::array_t& list_of(const Document& json) {
  return json.get_ref<const Document::array_t&>();
}
/// A float; NaN and infinities are strings there.
double float_of(const Document& json);

/// An object with one key, which tells the kind of its value: {"as_tensor": …}. Throws Error(input) when it has another
/// number of keys.
std::pair<const std::string&, const Document&> union_of(const Document& json);

}  // namespace shardpipe::pt2
