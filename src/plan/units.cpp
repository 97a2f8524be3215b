#include "plan/units.h"

#include <fmt/core.h>

#include <array>
#include <cmath>

namespace shardpipe::plan {
namespace {

constexpr std::array<const char*, 7> kLarge = {"", "k", "M", "G", "T", "P", "E"};
constexpr std::array<const char*, 4> kSmall = {"s", "ms", "us", "ns"};

// Three significant digits of a number from 1 to 1000.
std::string digits(double number) {
  return number >= 99.95   ? fmt::format("{:.0f}", number)
         : number >= 9.995 ? fmt::format("{:.1f}", number)
                           : fmt::format("{:.2f}", number);
}

}  // namespace

std::string short_number(double number) {
  size_t power = 0;
  while (number >= 999.5 && power + 1 < kLarge.size()) {
    number /= 1000;
    ++power;
  }
  if (power == 0) {
    return number == std::floor(number) ? fmt::format("{:.0f}", number) : digits(number);
  }
  return digits(number) + " " + kLarge[power];
}

std::string bytes_text(double bytes) {
  const std::string number = short_number(bytes);
  return number + (number.find(' ') == std::string::npos ? " B" : "B");
}

std::string seconds_text(double seconds) {
  if (seconds >= 7200) {
    return short_number(seconds / 3600) + " h";
  }
  if (seconds >= 600) {
    return digits(seconds / 60) + " min";
  }
  size_t power = 0;
  while (seconds > 0 && seconds < 0.9995 && power + 1 < kSmall.size()) {
    seconds *= 1000;
    ++power;
  }
  return digits(seconds) + " " + kSmall[power];
}

std::string percent_text(double part) {
  return fmt::format("{:.0f} %", 100 * part);
}

}  // namespace shardpipe::plan
