#include "text/pattern_field.h"

#include "base/error.h"

namespace shardpipe::text {

Regex pattern_field(const Fields& fields) {
  const Fields pattern = fields.object("pattern");
  if (pattern.has("String")) {
    return Regex::literal(pattern.string("String"));
  }
  if (pattern.has("Regex")) {
    return Regex::pattern(pattern.string("Regex"), pattern.where());
  }
  throw_input("{} must hold \"String\" or \"Regex\"", pattern.where());
}

std::string replace_all(const Regex& pattern, std::string_view text, std::string_view content) {
  std::string out;
  for (const Segment& segment : pattern.segments(text)) {
    out.append(segment.match ? content : text.substr(segment.begin, segment.end - segment.begin));
  }
  return out;
}

}  // namespace shardpipe::text
