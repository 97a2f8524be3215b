// The same work (talk() of group_body.h) on every transport, between threads and between processes, while a rank is
// delayed, dropped, killed or stopped: all others end soon with the cause.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/group_body.h"
#include "comm/jobs.h"
#include "comm/threads.h"

namespace shardpipe::comm::test {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::MatchesRegex;

constexpr int kRanks = 3;
constexpr int kVictim = 1;
constexpr std::chrono::milliseconds kTimeout{1500};

class OnTransport : public testing::TestWithParam<std::string> {
 protected:
  Outcome suffer(const std::string& fault, const Variables& more = {}) const {
    Variables variables = {{"SHARDPIPE_TEST_TRANSPORT", GetParam()}};
    variables.insert(variables.end(), more.begin(), more.end());
    return run(kRanks, {"suffer", fault, std::to_string(kVictim)}, variables);
  }
  /// What each thread ended with.
  std::vector<std::string> talk_of_threads(int rounds, const std::function<void(const ThreadRank&, int call)>& before) {
    MonitorOptions options;
    options.timeout = kTimeout;
    options.period = std::chrono::milliseconds(50);
    return run_connected(kRanks, transport_choice(GetParam()), options, [&](const ThreadRank& rank) {
      EXPECT_EQ(rank.group.transport(), GetParam());
      talk(rank.group, rank.transport, *rank.monitor, rounds, [&, late = delays(rank.group.rank())](int call) mutable {
        late(call);
        before(rank, call);
      });
    });
  }
  std::vector<std::string> threads_with(const std::function<void(const ThreadRank&)>& fault) {
    constexpr int kCall = 22;  // in a round of large messages
    return talk_of_threads(100'000, [&](const ThreadRank& rank, int call) {
      if (rank.group.rank() == kVictim && call == kCall) {
        fault(rank);
      }
    });
  }
};

TEST_P(OnTransport, DelayedThreads) {
  EXPECT_EQ(talk_of_threads(20, [](const ThreadRank&, int) {}), no_errors(kRanks));
}

TEST_P(OnTransport, DroppedThread) {
  // Its process lives and its heart beats: through memory only the time tells that it will not come.
  const std::vector<std::string> errors = threads_with([](const ThreadRank&) { throw Dropped(); });
  const std::string cause =
      GetParam() == "gloo" ? "lost connection to rank 1" : "(from|to|for) rank 1.*\\) did not end within 1.5 s";
  for (const int rank : {0, 2}) {
    EXPECT_THAT(errors[rank], MatchesRegex(".*" + cause + ".*"));
  }
}

TEST_P(OnTransport, FailedThread) {
  const std::vector<std::string> errors = threads_with([](const ThreadRank&) { throw_rank("the disk is full"); });
  EXPECT_EQ(errors[kVictim], "error[rank]: the disk is full");
  for (const int rank : {0, 2}) {
    EXPECT_THAT(errors[rank], HasSubstr("ended by the failure of rank 1: error[rank]: the disk is full"));
  }
}

TEST_P(OnTransport, StoppedThread) {
  const std::vector<std::string> errors = threads_with([](const ThreadRank& rank) {
    while (true) {
      rank.monitor->check();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  for (const std::string& error : errors) {
    EXPECT_THAT(error, HasSubstr("did not end within 1.5 s"));
  }
}

TEST_P(OnTransport, DelayedProcesses) {
  Process process(
      player({"launch", std::to_string(kRanks), "suffer", "delayed", "1"}), {{"SHARDPIPE_TEST_TRANSPORT", GetParam()}});
  EXPECT_EQ(process.wait(), 0) << process.err;
  EXPECT_EQ(count(process.out, "done "), kRanks);
}

TEST_P(OnTransport, DroppedProcess) {
  const Outcome outcome = suffer("dropped");
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(
      outcome.err, AnyOf(
                       HasSubstr("lost connection to rank 1"), HasSubstr("rank 1 ended with status 4"),
                       HasSubstr("rank 1: lost connection to rank"), HasSubstr("rank 1 lost the store")));
  EXPECT_LT(outcome.seconds, kEndLimit);
}

TEST_P(OnTransport, ProcessThatLeaves) {
  const Outcome outcome = suffer("gone");
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(outcome.err, HasSubstr("lost connection to rank 1 in action "));
  EXPECT_LT(outcome.seconds, kEndLimit);
}

TEST_P(OnTransport, KilledProcess) {
  const Outcome outcome = suffer("killed");
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 1 died (signal 9, killed)"));
  EXPECT_LT(outcome.seconds, kEndLimit);
}

TEST_P(OnTransport, StoppedProcess) {
  const Outcome outcome = suffer("stopped", {{"SHARDPIPE_TEST_HEARTBEAT_MS", "1500"}});
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 1 stopped responding: no heartbeat for 1.5 s"));
  EXPECT_LT(outcome.seconds, 2 + kEndLimit);
}

INSTANTIATE_TEST_SUITE_P(Faults, OnTransport, testing::Values("shm", "gloo"), [](const auto& transport) {
  return transport.param;
});

}  // namespace
}  // namespace shardpipe::comm::test
