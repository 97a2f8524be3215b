#pragma once

#include <fmt/core.h>

#include <string>
#include <utility>

namespace shardpipe {

/// Severity of a line on standard error. SHARDPIPE_LOG=quiet|warning|info|debug sets what is shown (default: warning).
enum class LogLevel { quiet, warning, info, debug };
LogLevel log_level();

/// Set once by a rank so that its lines carry "[rank N]".
void set_log_rank(int rank);

/// One line on standard error in one write, so that ranks do not interleave.
void log_line(LogLevel level, const std::string& text);

template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() >= LogLevel::warning) {
    log_line(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() >= LogLevel::info) {
    log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() >= LogLevel::debug) {
    log_line(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
  }
}

}  // namespace shardpipe
