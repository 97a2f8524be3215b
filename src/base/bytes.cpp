#include "base/bytes.h"

#include <charconv>
#include <cmath>

#include "base/error.h"

namespace shardpipe {

int64_t parse_bytes(std::string_view text, const std::string& what) {
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  std::string_view unit = text.substr(static_cast<size_t>(rest - text.data()));
  constexpr std::string_view kUnits = "KMGT";
  double scale = 1;
  if (!unit.empty() && kUnits.find(unit[0]) != std::string_view::npos) {
    const bool binary = unit.size() > 1 && unit[1] == 'i';
    scale = std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(kUnits.find(unit[0]) + 1));
    unit.remove_prefix(binary ? 2 : 1);
  }
  if (unit == "B") {
    unit = {};
  }
  const double bytes = number * scale;
  if (error != std::errc() || !unit.empty() || !(bytes >= 1) || bytes > std::pow(2.0, 62)) {
    throw Error(
        ErrorCode::usage, fmt::format("{} is \"{}\", must be a number of bytes", what, text),
        "as 300000, 512M or 1.5GiB");
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace shardpipe
