#include "base/error.h"

namespace shardpipe {

Error::Error(ErrorCode code, std::string message, std::string hint)
    : code_(code), message_(one_line(message)), hint_(one_line(hint)) {
  compose();
}

void Error::add_context(const std::string& context) {
  message_ += ", " + one_line(context);
  compose();
}

void Error::compose() {
  line_ = std::string("error[") + to_string(code_) + "]: " + message_;
  if (!hint_.empty()) {
    line_ += "; hint: " + hint_;
  }
}

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::internal:
      return "internal";
    case ErrorCode::io:
      return "io";
    case ErrorCode::usage:
      return "usage";
    case ErrorCode::input:
      return "input";
    case ErrorCode::rank:
      return "rank";
  }
  return "internal";
}

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::internal:
    case ErrorCode::io:
      return 1;
    case ErrorCode::usage:
      return 2;
    case ErrorCode::input:
      return 3;
    case ErrorCode::rank:
      return 4;
  }
  return 1;
}

Error current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::exception& error) {
    // LibTorch appends a stack trace.
    const std::string text = error.what();
    return {ErrorCode::internal, text.substr(0, text.find('\n'))};
  } catch (...) {
    return {ErrorCode::internal, "unknown exception"};
  }
}

std::string one_line(const std::string& text) {
  std::string line = text;
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      c = ' ';
    }
  }
  return line;
}

}  // namespace shardpipe
