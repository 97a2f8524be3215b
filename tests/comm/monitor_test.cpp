// Ranks as monitors in one process, around a store that some other connection serves.
#include "comm/monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "comm/failure.h"
#include "comm/socket.h"
#include "comm/store.h"

namespace shardpipe::comm {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

/// Notes that it was interrupted.
class FakeWait final : public Interruptible {
 public:
  void interrupt() noexcept override { interrupted = true; }
  std::atomic<bool> interrupted{false};
};

bool within(double seconds, const std::function<bool()>& condition) {
  const auto start = Clock::now();
  while (!condition()) {
    if (Clock::now() - start > std::chrono::duration<double>(seconds)) {
      return false;
    }
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

class Job {
 public:
  explicit Job(int size) : size_(size), server_(Store::serve(listen_on("127.0.0.1", 0), "job")) {}
  std::unique_ptr<Monitor> rank(int rank, MonitorOptions options = {}, milliseconds period = milliseconds(20)) {
    options.period = period;
    options.grace = milliseconds(60'000);  // the end of a stuck process would end the test
    return std::make_unique<Monitor>(
        Store::connect("", "127.0.0.1", server_->port(), milliseconds(20'000), "job"), "world0", rank, size_, false,
        options);
  }
  Store& store() { return *server_; }
  void die() { server_.reset(); }

 private:
  int size_;
  std::optional<Store> server_;
};

std::string thrown(Monitor& monitor) {
  try {
    monitor.check();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Monitor, FirstFailureWins) {
  Job job(3);
  const auto first = job.rank(0);
  const auto second = job.rank(1);
  const auto third = job.rank(2);
  FakeWait wait;
  ASSERT_TRUE(third->enter_wait(&wait));
  EXPECT_TRUE(second->report_failure(Error(ErrorCode::input, "file x is bad")));
  EXPECT_FALSE(second->report_failure(Error(ErrorCode::input, "file x is bad"))) << "printed once";
  EXPECT_FALSE(first->report_failure(Error(ErrorCode::internal, "a consequence")));
  EXPECT_TRUE(within(30, [&] { return wait.interrupted.load(); }));
  EXPECT_FALSE(third->enter_wait(&wait)) << "no new waits after a failure";
  EXPECT_EQ(thrown(*third), "error[rank]: rank 2: ended by the failure of rank 1: error[input]: file x is bad");
  EXPECT_EQ(thrown(*second), "error[input]: file x is bad") << "its own failure as it was";
  EXPECT_THROW(third->begin_action("F0"), Error);
  const FailureRecord record = FailureRecord::from_text(job.store().find(kFailureKey).value());
  EXPECT_EQ(record.rank, 1);
  EXPECT_EQ(record.status, 3);
  EXPECT_EQ(record.line, "error[input]: file x is bad");
  third->leave_wait(&wait);
}

TEST(Monitor, WatchdogNamesTheAction) {
  Job job(2);
  const auto idle = job.rank(0);
  const auto stuck = job.rank(1, {.timeout = milliseconds(300)});
  stuck->begin_action("1RECV_F0", {.stage = 1, .microbatch = 0, .from = 0});
  ASSERT_TRUE(within(30, [&] { return stuck->failed(); }));
  EXPECT_THAT(
      thrown(*stuck), HasSubstr("rank 1: action 1RECV_F0 (stage 1, microbatch 0, from rank 0) did not end within 0.3 "
                                "s; hint: raise --timeout"));
  EXPECT_TRUE(stuck->report_failure(Error(ErrorCode::rank, "what it became")));
  ASSERT_TRUE(within(30, [&] { return idle->failed(); }));
  EXPECT_FALSE(idle->report_failure(Error(ErrorCode::rank, "y")));
}

TEST(Monitor, TheCauseSpeaksBeforeThoseWhoWaitForIt) {
  Job job(2);
  // Long periods, so that a busy machine does not turn the order around.
  const auto waiting = job.rank(0, {.timeout = milliseconds(300)}, milliseconds(500));
  const auto computing = job.rank(1, {.timeout = milliseconds(300)}, milliseconds(500));
  waiting->begin_action("0RECV_B0", {.from = 1});
  computing->begin_action("1F0");
  ASSERT_TRUE(within(30, [&] { return waiting->failed() && computing->failed(); }));
  EXPECT_THAT(thrown(*computing), HasSubstr("rank 1: action 1F0 did not end"));
  EXPECT_FALSE(waiting->report_failure(Error(ErrorCode::rank, "x")));
}

TEST(Monitor, ShortActionsAndIdlenessAreNoFailures) {
  Job job(2);
  const auto first = job.rank(0, {.timeout = milliseconds(1500)});
  const auto second = job.rank(1, {.timeout = milliseconds(1500)});
  for (int i = 0; i < 100; ++i) {
    first->begin_action("F");
    std::this_thread::sleep_for(milliseconds(30));
    first->end_action();
  }
  EXPECT_EQ(thrown(*first), "");
  EXPECT_EQ(thrown(*second), "") << "it waited outside of any action";
}

TEST(Monitor, SilentRankIsNamed) {
  Job job(3);
  const auto first = job.rank(0, {.heartbeat_limit = milliseconds(400)});
  auto silent = job.rank(1);
  const auto third = job.rank(2);
  std::this_thread::sleep_for(milliseconds(100));
  silent.reset();  // no heartbeats any more, and it did not say that it left
  ASSERT_TRUE(within(30, [&] { return first->failed() && third->failed(); }));
  EXPECT_THAT(thrown(*first), HasSubstr("rank 1 stopped responding: no heartbeat for 0.4 s (seen by rank 0)"));
  EXPECT_TRUE(first->report_failure(Error(ErrorCode::rank, "x")));
}

TEST(Monitor, RankThatLeftIsNotMissed) {
  Job job(3);
  const auto first = job.rank(0, {.heartbeat_limit = milliseconds(1500)});
  auto left = job.rank(1);
  auto silent = job.rank(2);
  left->finish();
  left.reset();
  std::this_thread::sleep_for(milliseconds(3000));
  EXPECT_EQ(thrown(*first), "");
  // Whom it watched falls to the one before it.
  silent.reset();
  ASSERT_TRUE(within(30, [&] { return first->failed(); }));
  EXPECT_THAT(thrown(*first), HasSubstr("rank 2 stopped responding"));
}

TEST(Monitor, LostConnectionWaitsForTheCause) {
  Job job(2);
  const auto first = job.rank(0);
  std::thread launcher([&] {
    std::this_thread::sleep_for(milliseconds(300));
    const FailureRecord record{1, 4, "error[rank]: rank 1 died (signal 9, killed)", unique_author()};
    job.store().set_first(kFailureKey, record.to_text());
  });
  try {
    first->lost_connection(1, "reset by peer");
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("ended by the failure of rank 1: error[rank]: rank 1 died (signal 9, killed)"));
    EXPECT_FALSE(first->report_failure(error));
  }
  launcher.join();
}

TEST(Monitor, LostConnectionIsTheCauseWhenNoOtherComes) {
  Job job(2);
  const auto first = job.rank(0, {.cause_wait = milliseconds(200)});
  first->begin_action("0SEND_F1", {.to = 1});
  try {
    first->lost_connection(1, "reset by peer");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::rank);
    EXPECT_THAT(error.what(), HasSubstr("rank 0: lost connection to rank 1 in action 0SEND_F1"));
    EXPECT_TRUE(first->report_failure(error));
  }
}

TEST(Monitor, StoreIsGone) {
  auto job = std::make_unique<Job>(2);
  const auto first = job->rank(0);
  const auto second = job->rank(1);
  std::this_thread::sleep_for(milliseconds(100));
  job->die();
  ASSERT_TRUE(within(30, [&] { return first->failed() && second->failed(); }));
  EXPECT_THAT(thrown(*first), HasSubstr("the launcher died or stopped responding: rank 0 lost the store"));
  const bool prints = first->report_failure(Error(ErrorCode::rank, "x"));
  EXPECT_NE(prints, second->report_failure(Error(ErrorCode::rank, "x"))) << "exactly one prints";
}

TEST(Monitor, WorldOfOne) {
  Monitor monitor(0);
  monitor.begin_action("F0");
  EXPECT_TRUE(monitor.in_action());
  monitor.end_action();
  EXPECT_FALSE(monitor.in_action());
  monitor.finish();
  EXPECT_TRUE(monitor.report_failure(Error(ErrorCode::io, "disk full")));
  EXPECT_FALSE(monitor.report_failure(Error(ErrorCode::io, "disk full")));
}

TEST(Monitor, ActionScopeLeavesAnOuterActionAlone) {
  Monitor monitor(0);
  {
    const ActionScope outer(monitor, "outer");
    { const ActionScope inner(monitor, "inner"); }
    EXPECT_TRUE(monitor.in_action());
  }
  EXPECT_FALSE(monitor.in_action());
}

TEST(ActionSlot, SnapshotsAreWhole) {
  ActionSlot slot;
  EXPECT_FALSE(slot.snapshot().has_value());
  slot.begin("a name that is longer than the forty bytes it may have", {.stage = 3, .microbatch = -1, .to = 7});
  const auto snapshot = slot.snapshot();
  EXPECT_EQ(snapshot->text, "a name that is longer than the forty byt");
  EXPECT_EQ(snapshot->place.stage, 3);
  EXPECT_EQ(snapshot->place.microbatch, -1);
  EXPECT_EQ(snapshot->place.from, -1);
  EXPECT_EQ(snapshot->place.to, 7);
  // A reader beside a busy writer never sees parts of two actions.
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      const std::string text(20, static_cast<char>('a' + i % 26));
      slot.begin(text, {.stage = i % 26, .microbatch = i % 26});
      if (i % 3 == 0) {
        slot.end();
      }
    }
  });
  int seen = 0;
  const auto start = Clock::now();
  while (seen < 10'000 && Clock::now() - start < std::chrono::seconds(20)) {
    if (const auto now = slot.snapshot(); now && now->text.size() == 20) {
      ++seen;
      EXPECT_EQ(now->text, std::string(20, static_cast<char>('a' + now->place.stage)));
      EXPECT_EQ(now->place.stage, now->place.microbatch);
    }
  }
  stop = true;
  writer.join();
  EXPECT_GT(seen, 0);
}

TEST(FailureRecord, SurvivesAnyText) {
  const FailureRecord record = FailureRecord::from_error(3, Error(ErrorCode::io, "file \"\xff\n"), "author");
  const FailureRecord back = FailureRecord::from_text(record.to_text());
  EXPECT_EQ(back.rank, 3);
  EXPECT_EQ(back.status, 1);
  EXPECT_THAT(back.line, HasSubstr("error[io]: file \""));
  EXPECT_EQ(back.author, "author");
}

}  // namespace
}  // namespace shardpipe::comm
