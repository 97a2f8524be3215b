#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace shardpipe::plan {

/// Three digits and a power of a thousand: "135 M", "1.06 k", "12".
std::string short_number(double number);
/// "269 MB"
std::string bytes_text(double bytes);
/// "1.23 ms"
std::string seconds_text(double seconds);
/// "97 %"
std::string percent_text(double part);

}  // namespace shardpipe::plan
