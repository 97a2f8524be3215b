#pragma once

#include <exception>
#include <string>

#include "shardpipe/export.h"

namespace shardpipe {

/// What kind of thing went wrong. The command line maps it to its exit status (exit_status()).
enum class ErrorCode {
  internal,  ///< a defect of Shardpipe or an exception it did not expect: exit status 1
  io,        ///< the operating system refused (disk full, no permission to write): 1
  usage,     ///< the request is wrong (options, prompts, layouts, unknown architecture): 2
  input,     ///< a file of a model, inputs or data is unreadable or contradicts another: 3
  rank,      ///< a rank failed, died or timed out, or the ranks could not meet: 4
};

/// The one exception type that Shardpipe throws. Plain text, one line:
///   error[CODE]: <what>, <where>; <limit and actual>; hint: <what to do>
/// `message` holds what, where, limit and actual value; `hint` may be empty.
class SHARDPIPE_API Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message, std::string hint = {});

  ErrorCode code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }

  /// Appends where the error happened ("rank 1, stage 1, action 1F0"), outermost last.
  void add_context(const std::string& context);

  /// The whole line, without a newline.
  const char* what() const noexcept override { return line_.c_str(); }

 private:
  void compose();
  ErrorCode code_;
  std::string message_;
  std::string hint_;
  std::string line_;
};

/// "internal", "io", "usage", "input" or "rank".
SHARDPIPE_API const char* to_string(ErrorCode code);

/// 1, 1, 2, 3 or 4: see ErrorCode.
SHARDPIPE_API int exit_status(ErrorCode code);

}  // namespace shardpipe
