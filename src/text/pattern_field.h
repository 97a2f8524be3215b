#pragma once

#include <string>
#include <string_view>

#include "text/fields.h"
#include "text/regex.h"

namespace shardpipe::text {

/// The "pattern" of a Split or Replace: {"String": text} or {"Regex": pattern}. Throws Error(input).
Regex pattern_field(const Fields& fields);

/// The text with each match replaced by `content`.
std::string replace_all(const Regex& pattern, std::string_view text, std::string_view content);

}  // namespace shardpipe::text
