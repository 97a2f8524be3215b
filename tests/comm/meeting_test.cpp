// What ranks learn of each other's cores: they are threads here, bound as processes are.
#include "comm/meeting.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

#include "comm/cores.h"
#include "comm/socket.h"

namespace shardpipe::comm {
namespace {

Meeting meet_on(Store& store, const std::string& world, int rank, const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) {
    CPU_SET(static_cast<size_t>(core), &set);
  }
  EXPECT_EQ(::sched_setaffinity(0, sizeof(set), &set), 0);
  EXPECT_EQ(allowed_cores(), cores);
  Monitor monitor(rank);
  Environment environment;
  environment.rank = rank;
  environment.world_size = 2;
  return meet(store, monitor, world, environment, std::chrono::seconds(30));
}

TEST(Meeting, CoresOfAllRanksOfAHost) {
  const std::vector<int> all = allowed_cores();
  ASSERT_FALSE(all.empty());
  const Store store = Store::serve(listen_on("127.0.0.1", 0), "job");
  const auto cores_of = [&](const std::string& world, const std::vector<int>& first, const std::vector<int>& second) {
    Meeting meetings[2];
    std::vector<std::thread> ranks;
    for (const int rank : {0, 1}) {
      ranks.emplace_back([&, rank] {
        Store own = store.reconnect(std::chrono::seconds(30));
        meetings[rank] = meet_on(own, world, rank, rank == 0 ? first : second);
      });
    }
    for (std::thread& rank : ranks) {
      rank.join();
    }
    EXPECT_EQ(meetings[0].local_world_size, 2);
    EXPECT_EQ(meetings[0].local_cores, meetings[1].local_cores);
    return meetings[0].local_cores;
  };
  EXPECT_EQ(cores_of("unbound", all, all), fillable_cores(all.size()));
  EXPECT_EQ(cores_of("each its own", {all.front()}, {all.back()}), fillable_cores(std::min<size_t>(all.size(), 2)));
  EXPECT_EQ(cores_of("both one", {all.front()}, {all.front()}), 1);
}

}  // namespace
}  // namespace shardpipe::comm
