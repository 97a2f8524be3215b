// Which transport the ranks of a group agree on. The other ranks are played by what they write into the store.
#include "comm/connections.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "comm/failure.h"
#include "comm/shm_group.h"
#include "comm/socket.h"

namespace shardpipe::comm {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Agreement : public testing::Test {
 protected:
  ShmGroup::Seat seat(int rank) { return {{0, 1}, rank, std::make_shared<Monitor>(rank), false}; }
  std::string error(const std::function<void()>& call, ErrorCode code) {
    try {
      call();
    } catch (const Error& thrown) {
      EXPECT_EQ(thrown.code(), code);
      return thrown.what();
    }
    return "no error";
  }
  Meeting meeting(const std::string& other_machine) {
    return {0, 2, 2, other_machine == "m", true, {{"m", "node1, process 7"}, {other_machine, "node2, process 9"}}};
  }
  Connections connections(const std::string& other_machine, TransportChoice choice) {
    return {
        store, std::make_shared<Monitor>(0), meeting(other_machine), 0, choice, "w", "127.0.0.1", milliseconds(300)};
  }

  Store store = Store::serve(listen_on("127.0.0.1", 0), "job");
  std::string why;
};

TEST_F(Agreement, RankThatCannotMapIsToldToAll) {
  store.set("g/attached/1", "rank 1: no such file");
  EXPECT_EQ(ShmGroup::connect(store, "g", seat(0), milliseconds(5000), why), nullptr);
  EXPECT_EQ(why, "rank 1: no such file");
  EXPECT_EQ(store.get({"g/attached/0"})[0], "") << "it could";
}

TEST_F(Agreement, SegmentOfAnotherContainer) {
  // As a process of another container names its segment: here that is something else, or nothing.
  for (const char* pid : {"1", "99999999"}) {
    const std::string key = std::string("g") + pid;
    store.set(
        key + "/segment", fmt::format(R"({{"pid":{},"fd":0,"device":1,"inode":2,"bytes":4096,"error":""}})", pid));
    store.set(key + "/attached/0", "");
    EXPECT_EQ(ShmGroup::connect(store, key, seat(1), milliseconds(5000), why), nullptr);
    EXPECT_THAT(why, HasSubstr(fmt::format("rank 1: /proc/{}/fd/0", pid)));
    EXPECT_EQ(store.get({key + "/attached/1"})[0], why);
  }
}

TEST_F(Agreement, FirstRankHasNoMemoryToShare) {
  store.set("g/segment", R"({"error":"rank 0: memfd_create: Function not implemented"})");
  store.set("g/attached/0", "rank 0: memfd_create: Function not implemented");
  EXPECT_EQ(ShmGroup::connect(store, "g", seat(1), milliseconds(5000), why), nullptr);
  EXPECT_EQ(why, "rank 0: memfd_create: Function not implemented");
}

TEST_F(Agreement, RankThatDoesNotCome) {
  EXPECT_THAT(
      error([&] { ShmGroup::connect(store, "g", seat(0), milliseconds(200), why); }, ErrorCode::rank),
      HasSubstr("rank 0: the ranks of group g could not connect within 0.2 s: ranks 1 did not come"));
  EXPECT_THAT(
      error([&] { ShmGroup::connect(store, "h", seat(1), milliseconds(200), why); }, ErrorCode::rank),
      HasSubstr("rank 1: the ranks of group h could not connect within 0.2 s: ranks 0 did not come"));
}

TEST_F(Agreement, SharedMemoryAcrossHostsIsRefusedWhereAskedFor) {
  Connections across = connections("other", TransportChoice::shm);
  EXPECT_THAT(
      error(
          [&] {
            across.get({0, 1});
          },
          ErrorCode::usage),
      HasSubstr("--transport shm: ranks 0, 1 cannot share memory: they are not on one host: rank 0 on node1, process "
                "7; rank 1 on node2, process 9; hint: use auto or gloo"));
  store.set("w/group/0-1/attached/1", "rank 1: /proc/7/fd/3: Permission denied");
  Connections apart = connections("m", TransportChoice::shm);
  EXPECT_THAT(
      error(
          [&] {
            apart.get({0, 1});
          },
          ErrorCode::usage),
      HasSubstr("--transport shm: ranks 0, 1 cannot share memory: rank 1: /proc/7/fd/3: Permission denied"));
}

TEST_F(Agreement, GlooWhereMemoryCannotBeShared) {
  // Neither the segment nor any word about it is looked for: Gloo is, and the other rank does not come.
  Connections across = connections("other", TransportChoice::automatic);
  EXPECT_THAT(
      error(
          [&] {
            across.get({0, 1});
          },
          ErrorCode::rank),
      AllOf(HasSubstr("could not connect within 0.3 s"), Not(HasSubstr("frame #"))));
  EXPECT_FALSE(store.has({"w/group/0-1/attached/0"}));
}

/// A rank that dies while others connect to it: they see it before the launcher says what it was.
TEST_F(Agreement, CauseThatComesAfterwards) {
  MonitorOptions options;
  options.period = milliseconds(20);
  options.cause_wait = std::chrono::seconds(30);
  const auto monitor =
      std::make_shared<Monitor>(store.reconnect(std::chrono::seconds(20)), "world", 0, 2, false, options);
  Connections across(store, monitor, meeting("other"), 0, TransportChoice::gloo, "w", "127.0.0.1", milliseconds(300));
  std::thread launcher([&] {
    std::this_thread::sleep_for(milliseconds(600));
    Store reports = store.reconnect(std::chrono::seconds(20));
    const FailureRecord record{1, 4, "error[rank]: rank 1 died (signal 9, killed)", unique_author()};
    reports.set_first(kFailureKey, record.to_text());
  });
  EXPECT_THAT(
      error(
          [&] {
            across.get({0, 1});
          },
          ErrorCode::rank),
      HasSubstr("ended by the failure of rank 1: error[rank]: rank 1 died (signal 9, killed)"));
  launcher.join();
}

TEST_F(Agreement, NcclWhereARankCannot) {
  Connections wanted = connections("m", TransportChoice::nccl);
  wanted.set_device({at::Device(at::kCUDA, 0), {"", "has no NCCL"}});
  EXPECT_THAT(
      error(
          [&] {
            wanted.get({0, 1});
          },
          ErrorCode::usage),
      HasSubstr("--transport nccl: rank 1 has no NCCL; hint: use --transport auto"));
  EXPECT_FALSE(store.has({"w/group/0-1/attached/0"}));
}

TEST(TransportChoice, Names) {
  EXPECT_EQ(transport_choice("auto"), TransportChoice::automatic);
  EXPECT_EQ(transport_choice("gloo"), TransportChoice::gloo);
  EXPECT_EQ(transport_choice("shm"), TransportChoice::shm);
  for (const auto& [name, message] :
       {std::pair("nccl", "--transport nccl needs NCCL, which is not in this build; hint: use auto, gloo or shm"),
        {"tcp", "--transport is \"tcp\", must be auto, gloo, shm or nccl"}}) {
    try {
      transport_choice(name);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
      EXPECT_THAT(error.what(), HasSubstr(message));
    }
  }
  EXPECT_THAT(available_transports(), testing::Contains("gloo"));
}

}  // namespace
}  // namespace shardpipe::comm
