#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string_view>

namespace shardpipe {
namespace {

std::atomic<int> log_rank{-1};

LogLevel level_from_environment() {
  const char* value = std::getenv("SHARDPIPE_LOG");
  const std::string_view name = value == nullptr ? "warning" : value;
  if (name == "quiet") {
    return LogLevel::quiet;
  }
  if (name == "info") {
    return LogLevel::info;
  }
  if (name == "debug") {
    return LogLevel::debug;
  }
  return LogLevel::warning;
}

}  // namespace

LogLevel log_level() {
  static const LogLevel level = level_from_environment();
  return level;
}

void set_log_rank(int rank) {
  log_rank = rank;
}

void log_line(LogLevel level, const std::string& text) {
  const char* name = level == LogLevel::warning ? "warning" : level == LogLevel::info ? "info" : "debug";
  const int rank = log_rank;
  const std::string line =
      rank < 0 ? fmt::format("{}: {}\n", name, text) : fmt::format("{}: [rank {}] {}\n", name, rank, text);
  // Standard error is the last resort: nothing can be done when it is closed.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace shardpipe
