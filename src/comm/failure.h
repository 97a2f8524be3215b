#pragma once

#include <string>

#include "base/error.h"

namespace shardpipe::comm {

/// The first failure of a job: what the store's key `failure` holds. Whoever writes it first decides what is printed
/// and with which status the job ends; everyone else ends with status 4 and prints nothing.
struct FailureRecord {
  int rank = -1;  ///< the rank that failed
  int status = 4;
  std::string line;    ///< the whole line to print, without a newline
  std::string author;  ///< tells the one who wrote the record that it was the first

  static FailureRecord from_error(int rank, const Error& error, std::string author);
  static FailureRecord from_text(const std::string& text);
  std::string to_text() const;
};

inline constexpr const char* kFailureKey = "failure";

/// The prefix of a job's keys, which the launcher and the ranks agree on.
std::string job_prefix(const std::string& job);

/// A text that no other process of the job has.
std::string unique_author();

/// One line on standard error in one write.
void print_error_line(const std::string& line);

}  // namespace shardpipe::comm
