#include "frontend/pt2/document.h"

#include <limits>

#include "base/error.h"

namespace shardpipe::pt2 {

double float_of(const Document& json) {
  if (!json.is_string()) {
    return json.is_number_integer() ? static_cast<double>(integer_of(json))
                                    : json.get_ref<const Document::number_float_t&>();
  }
  const std::string& text = text_of(json);
  if (text == "Infinity") {
    return std::numeric_limits<double>::infinity();
  }
  if (text == "-Infinity") {
    return -std::numeric_limits<double>::infinity();
  }
  if (text == "NaN") {
    return std::numeric_limits<double>::quiet_NaN();
  }
  throw_input("\"{}\" is no float", text);
}

std::pair<const std::string&, const Document&> union_of(const Document& json) {
  const auto& object = json.get_ref<const Document::object_t&>();
  if (object.size() != 1) {
    throw_input("an object with {} keys where one key tells the kind", object.size());
  }
  return {object.begin()->first, object.begin()->second};
}

}  // namespace shardpipe::pt2
