#pragma once

// The folders' door to shardpipe::Error: formatted construction and the conversion of foreign exceptions.
#include <fmt/core.h>

#include <string>
#include <utility>

#include "shardpipe/error.h"

namespace shardpipe {

/// Throws Error(usage) with a formatted message and no hint; the other names likewise.
template <typename... Args>
[[noreturn]] void throw_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorCode::usage, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
[[noreturn]] void throw_input(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorCode::input, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
[[noreturn]] void throw_rank(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorCode::rank, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
[[noreturn]] void throw_internal(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorCode::internal, fmt::format(format, std::forward<Args>(args)...));
}

/// The exception in flight as an Error: an Error as it is, anything else as `internal` with the first line of its
/// text. Call inside a catch block.
Error current_error();

/// The text with control characters, newlines too, replaced by spaces: fit for a one-line message.
std::string one_line(const std::string& text);

}  // namespace shardpipe
