#include "schedule/lower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "schedule/builders.h"
#include "support/errors.h"

namespace shardpipe::schedule {
namespace {

using test::error_of;
using ::testing::HasSubstr;

TEST(Lowering, PutsMessagesAroundForwards) {
  EXPECT_EQ(to_csv(lower(fill_drain(3, 1), chain_edges(3))), "0F0,0SEND_F0\n1RECV_F0,1F0,1SEND_F0\n2RECV_F0,2F0\n");
}

// The actions of torch.distributed.pipelining's _add_send_recv for GPipe on two stages.
TEST(Lowering, PutsMessagesAroundBackwards) {
  EXPECT_EQ(
      to_csv(lower(fill_drain(2, 1, true), chain_edges(2))), "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n");
}

TEST(Lowering, SkipConnectionGoesDirectly) {
  const StageEdges edges = {{0, 2}, {1, 2}};
  EXPECT_EQ(to_csv(lower(fill_drain(3, 1), edges)), "0F0,0SEND_F0\n1F0,1SEND_F0\n2RECV_F0,2F0\n");
}

TEST(Lowering, TokensTravelFromTheLastStage) {
  const Schedule lowered = lower(fill_drain(2, 2), chain_edges(2));
  EXPECT_EQ(
      to_csv(add_token_exchange(lowered, true)),
      "0F0,0SEND_F0,0F1,0SEND_F1\n1RECV_F0,1F0,1SEND_T0,1RECV_F1,1F1,1SEND_T1\n");
  EXPECT_EQ(
      to_csv(add_token_exchange(lowered, false)),
      "0RECV_T0,0F0,0SEND_F0,0RECV_T1,0F1,0SEND_F1\n1RECV_F0,1F0,1SEND_T0,1RECV_F1,1F1,1SEND_T1\n");
}

// I sends what other stages wait for, W nothing; the reduction follows the last W.
TEST(Lowering, PutsMessagesAroundI) {
  const Schedule split = parse_csv("0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1I1,1W0,1W1\n", "test");
  EXPECT_EQ(
      to_csv(lower(split, chain_edges(2), true)),
      "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0I0,0W0,0RECV_B1,0I1,0W1,0REDUCE_GRAD\n"
      "1RECV_F0,1F0,1I0,1SEND_B0,1RECV_F1,1F1,1I1,1SEND_B1,1W0,1W1,1REDUCE_GRAD\n");
}

TEST(Lowering, ReducesWhenAStageIsDone) {
  EXPECT_EQ(
      to_csv(lower(make_schedule("looped-bfs", 1, 2, 2, true), {}, true)),
      "0F0,0F1,1F0,1F1,1B0,1B1,1REDUCE_GRAD,0B0,0B1,0REDUCE_GRAD\n");
}

TEST(Lowering, PutsInLocalMessagesWhereTheyAreMissing) {
  // As torch.distributed.pipelining lists two ranks of ZB-V: stages 1 and 2 are on rank 1 and exchange no message.
  const std::string torchs =
      "0F0,0SEND_F0,3RECV_F0,3F0,3B0,3SEND_B0,0RECV_B0,0B0\n"
      "1RECV_F0,1F0,2F0,2SEND_F0,2RECV_B0,2B0,1B0,1SEND_B0\n";
  const Schedule complete = add_local_messages(parse_csv(torchs, "test"), chain_edges(4));
  EXPECT_EQ(
      to_csv(complete),
      "0F0,0SEND_F0,3RECV_F0,3F0,3B0,3SEND_B0,0RECV_B0,0B0\n"
      "1RECV_F0,1F0,1SEND_F0,2RECV_F0,2F0,2SEND_F0,2RECV_B0,2B0,2SEND_B0,1RECV_B0,1B0,1SEND_B0\n");
  EXPECT_EQ(add_local_messages(complete, chain_edges(4)), complete);
}

TEST(Lowering, RefusesEdgesThatCannotBe) {
  const Schedule schedule = make_schedule("fill-drain", 2, 1, 1, true);
  for (const StageEdges& edges : {StageEdges{{1, 0}}, {{0, 2}}, {{-1, 1}}, {{1, 1}}}) {
    const Error error = error_of([&] { lower(schedule, edges); });
    EXPECT_EQ(error.code(), ErrorCode::input);
    EXPECT_THAT(error.message(), HasSubstr("it must lead to a later one of the schedule's 2 stages"));
  }
}

}  // namespace
}  // namespace shardpipe::schedule
