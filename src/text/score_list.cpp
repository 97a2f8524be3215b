#include "text/score_list.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace shardpipe::text {
namespace {

// Adds a digit unless the number would not fit.
bool add_digit(uint64_t& number, uint64_t digit) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  if (number > kMax / 10 || (number == kMax / 10 && digit > kMax % 10)) {
    return false;
  }
  number = number * 10 + digit;
  return true;
}

// 10^n, correctly rounded, for n up to 308.
double power_of_ten(int64_t n) {
  return std::strtod(("1e" + std::to_string(n)).c_str(), nullptr);
}

}  // namespace

void ScoreList::add(std::string_view token, double exact, double rounded) {
  entries_.push_back({characters_.size(), token.size(), exact, rounded});
  characters_.append(token);
}

double serde_number(std::string_view text) {
  const bool negative = text.starts_with('-');
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool fraction = false;
  bool full = false;  // further digits do not fit
  size_t i = negative ? 1 : 0;
  for (; i < text.size() && text[i] != 'e' && text[i] != 'E'; ++i) {
    if (text[i] == '.') {
      fraction = true;
      continue;
    }
    full = full || !add_digit(digits, static_cast<uint64_t>(text[i] - '0'));
    if (full) {
      exponent += fraction ? 0 : 1;
    } else {
      exponent -= fraction ? 1 : 0;
    }
  }
  if (i < text.size()) {
    const bool minus = text[i + 1] == '-';
    int64_t written = 0;
    for (i += text[i + 1] == '-' || text[i + 1] == '+' ? 2 : 1; i < text.size(); ++i) {
      written = std::min<int64_t>(written * 10 + (text[i] - '0'), 1'000'000'000);
    }
    exponent += minus ? -written : written;
  }
  auto value = static_cast<double>(digits);
  while (exponent < -308 && value != 0.0) {
    value /= 1e308;
    exponent += 308;
  }
  if (value != 0.0) {
    value = exponent >= 0 ? value * power_of_ten(exponent) : value / power_of_ten(-exponent);
  }
  return negative ? -value : value;
}

}  // namespace shardpipe::text
