// How a job ends when a rank fails: its own status, one line, soon, and no process left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <set>

#include "comm/jobs.h"

namespace shardpipe::comm::test {
namespace {

using testing::HasSubstr;

TEST(Failure, RankThrows) {
  for (const char* rank : {"0", "1", "2"}) {
    const Outcome outcome = run(3, {"misbehave", "throw", rank});
    EXPECT_EQ(outcome.status, 3) << "its own code";
    EXPECT_THAT(outcome.err, HasSubstr(std::string("is broken, rank ") + rank + "; hint: mend it"));
    EXPECT_LT(outcome.seconds, kEndLimit);
  }
}

TEST(Failure, RankThrowsWhileTheOthersComputeForLong) {
  const Outcome outcome = run(3, {"misbehave", "throw-while-others-compute", "1"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("error[internal]: rank 1 fails while the others compute"));
  EXPECT_LT(outcome.seconds, kEndLimit);
}

TEST(Failure, RankThrowsDuringABroadcast) {
  Process process(player({"launch", "3", "throw-during-broadcast"}));
  EXPECT_EQ(process.wait(), 1);
  EXPECT_EQ(process.err, "error[io]: disk full\n");
}

TEST(Failure, RankCrashes) {
  const Outcome outcome = run(2, {"misbehave", "raise", "1", std::to_string(SIGSEGV)});
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 1 died (signal 11, segmentation fault)"));
  EXPECT_LT(outcome.seconds, kEndLimit);
}

/// c10d writes to sockets whose other end is dead; the signal for that killed ranks instead of the error being
/// reported.
TEST(Failure, BrokenPipeIsNoSignal) {
  const Outcome outcome =
      run(2, {"misbehave", "raise", "1", std::to_string(SIGPIPE)}, {{"SHARDPIPE_TEST_TIMEOUT_MS", "2000"}});
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(outcome.err, HasSubstr("did not end within 2 s")) << "it went on and waited";
}

TEST(Failure, RankExits) {
  Outcome outcome = run(2, {"misbehave", "exit", "1", "7"});
  EXPECT_EQ(outcome.status, 7);
  EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 1 ended with status 7 and gave no reason"));
  outcome = run(2, {"misbehave", "exit", "0", "0"});
  EXPECT_EQ(outcome.status, 4) << "it left without a word, which the other noticed";
  EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 1: lost connection to rank 0 in action 1RECV_F0"));
}

/// The first rank; another one: faults_test.cpp.
TEST(Failure, StoppedRankIsNamed) {
  const Outcome outcome =
      run(3, {"misbehave", "raise", "0", std::to_string(SIGSTOP)}, {{"SHARDPIPE_TEST_HEARTBEAT_MS", "2000"}});
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 0 stopped responding: no heartbeat for 2 s"));
  EXPECT_LT(outcome.seconds, 2 + kEndLimit);
}

TEST(Failure, WatchdogNamesTheStuckAction) {
  const Variables timeout = {{"SHARDPIPE_TEST_TIMEOUT_MS", "2000"}};
  Outcome outcome = run(2, {"misbehave", "loop", "0"}, timeout);
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(
      outcome.err,
      HasSubstr("error[rank]: rank 1: action 1RECV_F0 (stage 1, microbatch 0, from rank 0) did not end within 2 s"));
  EXPECT_LT(outcome.seconds, 2 + kEndLimit);
  outcome = run(2, {"misbehave", "compute", "0"}, timeout);
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 0: action 0F3 (stage 0, microbatch 3) did not end within 2 s"))
      << "the cause, not the one that waits for it";
  EXPECT_LT(outcome.seconds, 2 + kEndLimit);
}

TEST(Failure, BeforeTheRanksMeetOneLineIsPrinted) {
  Process process(player({"launch", "4", "fail-before-meeting"}));
  EXPECT_EQ(process.wait(), 2);
  EXPECT_EQ(count(process.err, "error[usage]: rank "), 1) << process.err;
}

/// The names in the folder of shared memory: ours have none there.
std::set<std::string> shared_memory_names() {
  std::set<std::string> names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", ignored)) {
    names.insert(entry.path().filename());
  }
  return names;
}

/// Waits in a collective: the cause is named as well.
TEST(Failure, RanksThatWaitInACollective) {
  for (const char* transport : {"shm", "gloo"}) {
    const Variables variables = {{"SHARDPIPE_TEST_TRANSPORT", transport}, {"SHARDPIPE_TEST_TIMEOUT_MS", "2000"}};
    Outcome outcome = run(2, {"misbehave", "compute", "0", "0", "all_reduce"}, variables);
    EXPECT_EQ(outcome.status, 4);
    EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 0: action 0F3 (stage 0, microbatch 3) did not end within"));
    outcome = run(2, {"misbehave", "loop", "0", "0", "all_reduce"}, variables);
    EXPECT_EQ(outcome.status, 4);
    EXPECT_THAT(outcome.err, HasSubstr("error[rank]: rank 1: action all_reduce (waiting for rank 0"));
    EXPECT_THAT(outcome.err, HasSubstr(") did not end within 2 s"));
  }
}

TEST(Failure, LateRanksAreWaitedForAsleep) {
  for (const char* transport : {"shm", "gloo"}) {
    Process process(player({"launch", "3", "late", "1"}), {{"SHARDPIPE_TEST_TRANSPORT", transport}});
    EXPECT_EQ(process.wait(), 0) << process.err;
  }
}

/// Starts and stops jobs, and worlds within jobs: no process, segment, thread or file is left, nor the port, at which
/// the next job listens.
TEST(Failure, StartStopCycles) {
  const std::set<std::string> names = shared_memory_names();
  const int jobs = std::min(13 * fuzz_scale(), 130);
  const int worlds = 7;  // besides the one that each job begins with
  const std::string master = "127.0.0.1:" + std::to_string(free_port());
  for (int round = 0; round < jobs; ++round) {
    const std::string job = mark();
    Process process(
        player({"launch", std::to_string(2 + round % 2), "--master", master, "worlds", std::to_string(worlds)}),
        with_mark({{"SHARDPIPE_TEST_TRANSPORT", round % 4 == 3 ? "gloo" : "auto"}}, job));
    ASSERT_EQ(process.wait(), 0) << process.err;
    ASSERT_TRUE(none_left(job));
  }
  EXPECT_EQ(shared_memory_names(), names);
  std::printf("%d start-stop cycles\n", jobs * (worlds + 1));
}

/// Kills a random rank of a job that talks all the time, by messages or sums.
TEST(Failure, KilledRank) {
  std::mt19937 random(20260731);
  double slowest = 0;
  const std::set<std::string> names = shared_memory_names();
  const int rounds = std::min(20 * fuzz_scale(), 200);
  for (int round = 0; round < rounds; ++round) {
    const int ranks = 2 + static_cast<int>(random() % 3);
    const int victim = round % ranks;
    const std::string job = mark();
    Process process(
        player({"launch", std::to_string(ranks), round % 3 == 0 ? "ring" : "reduce"}),
        with_mark({{"SHARDPIPE_TEST_TRANSPORT", round % 5 == 4 ? "gloo" : "auto"}}, job));
    ASSERT_TRUE(process.read_until([&](const std::string& out) { return all_ready(out, ranks); }, kStartLimit));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    const Clock::time_point start = Clock::now();
    ::kill(ready_ranks(process.out, ranks)[victim], SIGKILL);
    ASSERT_EQ(process.wait(40), 4) << process.err;
    slowest = std::max(slowest, seconds_since(start));
    ASSERT_EQ(
        process.err, "error[rank]: rank " + std::to_string(victim) +
                         " died (signal 9, killed); hint: the system kills a process when memory runs out\n");
    ASSERT_TRUE(none_left(job));
  }
  EXPECT_LT(slowest, kEndLimit);
  EXPECT_EQ(shared_memory_names(), names);
  std::printf("%d kills, slowest end after %.2f s\n", rounds, slowest);
}

/// Kills a random process of the job, the launcher included, at a random moment of its start.
TEST(Failure, KilledWhileStarting) {
  std::mt19937 random(7);
  const int rounds = 4 * fuzz_scale();
  for (int round = 0; round < rounds; ++round) {
    const std::string job = mark();
    Process process(player({"launch", "3", "stays", "1500"}), with_mark({}, job));
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 1200));
    std::vector<pid_t> alive = processes_with(job);
    if (alive.empty()) {
      alive.push_back(process.pid());  // it has not executed its program yet
    }
    const pid_t victim = alive[random() % alive.size()];
    ::kill(victim, SIGKILL);
    const int status = process.wait(40);
    if (victim == process.pid()) {
      ASSERT_EQ(status, -SIGKILL);
    } else {
      ASSERT_EQ(status, 4) << process.err;
      ASSERT_EQ(count(process.err, "died (signal 9, killed)"), 1) << process.err;
      ASSERT_EQ(count(process.err, "error["), 1) << process.err;
    }
    ASSERT_TRUE(none_left(job));
  }
}

/// No launcher watches: rank 0 serves the store, and whoever is left finds out by itself.
TEST(Failure, KilledRankWithoutLauncher) {
  std::mt19937 random(11);
  const int rounds = 3 * fuzz_scale();
  double slowest = 0;
  for (int round = 0; round < rounds; ++round) {
    constexpr int kRanks = 3;
    const int victim = round % kRanks;
    const int port = free_port();
    std::vector<std::unique_ptr<Process>> ranks;
    for (int rank = 0; rank < kRanks; ++rank) {
      ranks.push_back(std::make_unique<Process>(
          player({round % 2 == 0 ? "ring" : "reduce"}), Variables{
                                                            {"RANK", std::to_string(rank)},
                                                            {"WORLD_SIZE", std::to_string(kRanks)},
                                                            {"MASTER_ADDR", "127.0.0.1"},
                                                            {"MASTER_PORT", std::to_string(port)}}));
    }
    for (auto& rank : ranks) {
      ASSERT_TRUE(rank->read_until([](const std::string& out) { return all_ready(out, 1); }, kStartLimit)) << rank->err;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    const Clock::time_point start = Clock::now();
    ranks[victim]->send(SIGKILL);
    std::string lines;
    for (int rank = 0; rank < kRanks; ++rank) {
      ASSERT_EQ(ranks[rank]->wait(40), rank == victim ? -SIGKILL : 4) << ranks[rank]->err;
      lines += ranks[rank]->err;
    }
    slowest = std::max(slowest, seconds_since(start));
    ASSERT_EQ(count(lines, "error["), 1) << lines;
    if (victim == 0) {
      ASSERT_THAT(lines, HasSubstr("error[rank]: rank 0 died or stopped responding: rank 1 lost the store"));
    } else {
      ASSERT_THAT(lines, HasSubstr("lost connection to rank " + std::to_string(victim)));
    }
  }
  EXPECT_LT(slowest, kEndLimit);
  std::printf("%d kills, slowest end after %.2f s\n", rounds, slowest);
}

TEST(Failure, RankZeroServesAndFails) {
  const int port = free_port();
  std::vector<std::unique_ptr<Process>> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.push_back(std::make_unique<Process>(
        player({"misbehave", "throw", "0"}), Variables{
                                                 {"RANK", std::to_string(rank)},
                                                 {"WORLD_SIZE", "3"},
                                                 {"MASTER_ADDR", "localhost"},
                                                 {"MASTER_PORT", std::to_string(port)}}));
  }
  EXPECT_EQ(ranks[0]->wait(), 3);
  EXPECT_THAT(ranks[0]->err, HasSubstr("is broken, rank 0"));
  for (const int victim : {1, 2}) {
    EXPECT_EQ(ranks[victim]->wait(), 4);
    EXPECT_EQ(ranks[victim]->err, "") << "the store stayed until they knew";
  }
}

}  // namespace
}  // namespace shardpipe::comm::test
