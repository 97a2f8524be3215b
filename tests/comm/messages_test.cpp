// Messages, collectives and groups between real processes; the ranks check what arrives (rank_player.cpp).
#include <gtest/gtest.h>

#include "comm/process.h"

namespace shardpipe::comm::test {
namespace {

constexpr const char* kTransports[] = {"shm", "gloo"};

Variables over(const std::string& transport) {
  return {{"SHARDPIPE_TEST_TRANSPORT", transport}};
}

void expect_done(const std::vector<std::string>& arguments, int num_ranks, const Variables& variables = {}) {
  Process process(player(arguments), variables);
  EXPECT_EQ(process.wait(120), 0) << process.err;
  EXPECT_EQ(count(process.out, "done "), num_ranks) << process.out;
  EXPECT_EQ(process.err, "");
}

TEST(Messages, AllToAllOfManySizesAndTypes) {
  for (const char* transport : kTransports) {
    for (const int ranks : {2, 5}) {
      expect_done({"launch", std::to_string(ranks), "messages"}, ranks, over(transport));
    }
  }
}

TEST(Messages, SendsBeforeReceivesAndPolling) {
  for (const char* transport : kTransports) {
    for (const int ranks : {2, 5}) {
      expect_done({"launch", std::to_string(ranks), "orders"}, ranks, over(transport));
    }
  }
}

TEST(Messages, BroadcastAndGather) {
  for (const char* transport : kTransports) {
    expect_done({"launch", "2", "broadcasts", "50000000"}, 2, over(transport));
    expect_done({"launch", "5", "broadcasts", "9000001"}, 5, over(transport));
  }
}

TEST(Messages, AsC10dGroup) {
  for (const char* transport : kTransports) {
    expect_done({"launch", "3", "c10d"}, 3, over(transport));
  }
}

TEST(Messages, GroupsFollowTheMesh) {
  expect_done({"launch", "4", "groups", "2", "1", "2"}, 4);
  expect_done({"launch", "6", "groups", "3", "2", "1"}, 6);
  expect_done({"launch", "2", "groups", "1", "1", "2"}, 2);
}

TEST(Messages, Collectives) {
  expect_done({"launch", "1", "collectives", "self"}, 1);
  for (const char* transport : kTransports) {
    for (const int ranks : {2, transport == kTransports[0] ? 4 : 3}) {
      expect_done({"launch", std::to_string(ranks), "collectives", transport}, ranks, over(transport));
    }
  }
}

TEST(Messages, LayoutAndWorldDisagree) {
  Process process(player({"launch", "2", "groups", "2", "1", "2"}));
  EXPECT_EQ(process.wait(), 2);
  EXPECT_EQ(count(process.err, "error["), 1) << process.err;
  EXPECT_NE(process.err.find("the layout needs 2 x 1 x 2 = 4 ranks (pp x dp x tp), 2 were started"), std::string::npos);
}

TEST(Messages, OneRankNeedsNothing) {
  expect_done({"messages"}, 1);
  expect_done({"broadcasts", "1000"}, 1);
  expect_done({"launch", "1", "groups", "1", "1", "1"}, 1);
}

TEST(Messages, OddNetworkSettingsDoNotMatterOnOneHost) {
  expect_done(
      {"launch", "2", "messages"}, 2,
      {{"GLOO_SOCKET_IFNAME", "nosuch0"}, {"HOSTNAME", "nosuch.invalid"}, {"SHARDPIPE_TEST_TRANSPORT", "gloo"}});
}

}  // namespace
}  // namespace shardpipe::comm::test
