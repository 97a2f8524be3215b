#include "text/metaspace.h"

#include "base/error.h"
#include "text/utf8.h"

namespace shardpipe::text {

std::string Metaspace::replace_spaces(std::string_view text) const {
  std::string out;
  for (const char c : text) {
    c == ' ' ? out.append(replacement) : out.append(1, c);
  }
  return out;
}

std::string char_field(const Fields& fields, const char* name) {
  std::string value = fields.string(name);
  if (value.empty() || char_length(value[0]) != value.size()) {
    throw_input("{}.{} must be one character, is {:?}", fields.where(), name, value);
  }
  return value;
}

Metaspace make_metaspace(const Fields& fields) {
  const std::string scheme = fields.has("prepend_scheme") ? fields.string("prepend_scheme") : "always";
  Metaspace out{char_field(fields, "replacement"), Metaspace::Prepend::always, fields.boolean("split", true)};
  if (scheme == "never") {
    out.prepend = Metaspace::Prepend::never;
  } else if (scheme == "first") {
    out.prepend = Metaspace::Prepend::first;
  } else if (scheme != "always") {
    throw_input("{}.prepend_scheme {:?} is unknown", fields.where(), scheme);
  }
  if (!fields.boolean("add_prefix_space", true) && out.prepend != Metaspace::Prepend::never) {
    throw_input("{}.add_prefix_space is false, but prepend_scheme is {:?}", fields.where(), scheme);
  }
  return out;
}

}  // namespace shardpipe::text
