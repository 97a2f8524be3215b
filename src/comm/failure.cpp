#include "comm/failure.h"

#include <unistd.h>

#include <random>

#include "base/json.h"

namespace shardpipe::comm {

FailureRecord FailureRecord::from_error(int rank, const Error& error, std::string author) {
  return {rank, exit_status(error.code()), error.what(), std::move(author)};
}

FailureRecord FailureRecord::from_text(const std::string& text) {
  const Json json = parse_json(text, "failure record in the store");
  FailureRecord record;
  record.rank = json.value("rank", -1);
  record.status = json.value("status", 4);
  record.line = json.value("line", std::string());
  record.author = json.value("author", std::string());
  return record;
}

std::string FailureRecord::to_text() const {
  const Json json = {{"rank", rank}, {"status", status}, {"line", line}, {"author", author}};
  // Messages may quote file names that are not UTF-8.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string job_prefix(const std::string& job) {
  return "shardpipe/" + job;
}

std::string unique_author() {
  std::random_device random;
  return fmt::format("{}-{:08x}{:08x}", ::getpid(), random(), random());
}

void print_error_line(const std::string& line) {
  const std::string text = line + "\n";
  // Standard error is the last resort: nothing can be done when it is closed.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace shardpipe::comm
