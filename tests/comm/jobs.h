#pragma once

// Jobs of rank_player's that end badly.
#include <gtest/gtest.h>

#include "comm/process.h"

namespace shardpipe::comm::test {

// A loaded machine starts processes slowly; from failure to end is asserted apart from it.
inline constexpr double kStartLimit = 60;
// All ranks end 2 to 3 s after a failure; the rest is for machines with more to do.
inline constexpr double kEndLimit = 8;

struct Outcome {
  int status = 0;
  std::string err;
  double seconds = 0;  ///< from `ready` to the end
};

/// A variable that marks the processes of one job.
inline std::string mark() {
  static int number = 0;
  return "SHARDPIPE_TEST_MARK=" + std::to_string(::getpid()) + "-" + std::to_string(number++) + ";";
}

inline Variables with_mark(Variables variables, const std::string& text) {
  variables.emplace_back("SHARDPIPE_TEST_MARK", text.substr(text.find('=') + 1));
  return variables;
}

inline Outcome run(int ranks, std::vector<std::string> scenario, const Variables& variables = {}) {
  const std::string job = mark();
  scenario.insert(scenario.begin(), {"launch", std::to_string(ranks)});
  Process process(player(scenario), with_mark(variables, job));
  EXPECT_TRUE(process.read_until([&](const std::string& out) { return all_ready(out, ranks); }, kStartLimit))
      << process.err;
  const Clock::time_point start = Clock::now();
  Outcome outcome;
  outcome.status = process.wait(40);
  outcome.seconds = seconds_since(start);
  outcome.err = process.err;
  EXPECT_TRUE(none_left(job));
  EXPECT_EQ(count(outcome.err, "error["), 1) << outcome.err;
  EXPECT_EQ(count(outcome.err, "\n"), 1) << outcome.err;
  return outcome;
}

}  // namespace shardpipe::comm::test
