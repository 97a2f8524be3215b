// Python's int(text, base) and float(text).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

// Digits may be grouped by single underscores between them; nullopt for any other underscore.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (
        i == 0 || i + 1 == text.size() || !isalnum(static_cast<unsigned char>(text[i - 1])) ||
        !isalnum(static_cast<unsigned char>(text[i + 1]))) {
      return std::nullopt;
    }
  }
  return out;
}

// "+5" and "-5" into a sign and the rest.
bool take_sign(std::string_view& text) {
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    text.remove_prefix(1);
  }
  return negative;
}

}  // namespace

std::optional<int64_t> parse_integer(std::string_view source, int base) {
  if (base != 0 && (base < 2 || base > 36)) {
    return std::nullopt;
  }
  const std::string stripped = strip(source, std::nullopt, true, true);
  std::string_view text = stripped;
  const bool negative = take_sign(text);
  static constexpr std::pair<char, int> kPrefixes[] = {{'x', 16}, {'o', 8}, {'b', 2}};
  bool prefixed = false;
  for (const auto& [letter, value] : kPrefixes) {
    if (text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == letter && (base == 0 || base == value)) {
      base = value;
      prefixed = true;
      text.remove_prefix(text[2] == '_' ? 3 : 2);
      break;
    }
  }
  const auto digits = without_underscores(text);
  if (!digits || digits->empty()) {
    return std::nullopt;
  }
  if (base == 0) {
    // As in source code: a decimal number has no leading zero.
    base = 10;
    if (!prefixed && (*digits)[0] == '0' && digits->find_first_not_of('0') != std::string::npos) {
      return std::nullopt;
    }
  }
  uint64_t value = 0;
  const char* end = digits->data() + digits->size();
  const auto result = std::from_chars(digits->data(), end, value, base);
  if (result.ptr != end) {
    return std::nullopt;
  }
  if (result.ec == std::errc::result_out_of_range || value > static_cast<uint64_t>(INT64_MAX)) {
    throw_input("the integer {} is beyond 64 bits", stripped);
  }
  return negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
}

std::optional<double> parse_float(std::string_view source) {
  const std::string stripped = strip(source, std::nullopt, true, true);
  std::string_view text = stripped;
  const bool negative = take_sign(text);
  double value = 0;
  std::string name(text);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name == "inf" || name == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (name == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    const auto digits = without_underscores(text);
    if (!digits || digits->empty() || !(isdigit(static_cast<unsigned char>((*digits)[0])) || (*digits)[0] == '.')) {
      return std::nullopt;
    }
    const char* end = digits->data() + digits->size();
    const auto result = std::from_chars(digits->data(), end, value);
    if (result.ptr != end) {
      return std::nullopt;
    }
    if (result.ec == std::errc::result_out_of_range) {
      value = std::strtod(digits->c_str(), nullptr);  // gives infinity or zero, as Python does
    }
  }
  return negative ? -value : value;
}

}  // namespace shardpipe::text::jinja
