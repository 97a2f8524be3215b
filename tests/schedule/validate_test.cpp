#include "schedule/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "schedule/builders.h"
#include "support/errors.h"

namespace shardpipe::schedule {
namespace {

using test::error_of;
using ::testing::HasSubstr;

struct Broken {
  const char* csv;
  const char* message;
};
class ValidateRefuses : public ::testing::TestWithParam<Broken> {};

TEST_P(ValidateRefuses, AndSaysWhere) {
  const Schedule schedule = parse_csv(GetParam().csv, "test");
  const Error error = error_of([&] { validate(schedule, chain_edges(2)); });
  EXPECT_EQ(error.code(), ErrorCode::input);
  EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All,
    ValidateRefuses,
    ::testing::Values(
        Broken{"0F0,0SEND_F0\n1F0,1RECV_F0\n", "rank 1, position 0, action 1F0: its inputs were not received"},
        Broken{"0SEND_F0,0F0\n1RECV_F0,1F0\n", "the forward did not run before"},
        Broken{"0F0,0F0,0SEND_F0\n1RECV_F0,1F0\n", "the forward ran before"},
        Broken{"0F0,0SEND_F0,0SEND_F0\n1RECV_F0,1F0\n", "there is nothing to send"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1RECV_F0,1F0\n", "the values were received before"},
        Broken{"0RECV_F0,0F0,0SEND_F0\n1RECV_F0,1F0\n", "no stage sends to this one"},
        Broken{"0F0\n1RECV_F0,1F0\n", "the schedule has no 0SEND_F0"},
        Broken{"0F0,0SEND_F0\n1RECV_F0\n", "the schedule has no 1F0"},
        Broken{"0F0,0SEND_F0,0F1\n1RECV_F0,1F0\n", "the schedule has no 1F1"},
        Broken{"0B0,0F0,0SEND_F0\n1RECV_F0,1F0\n", "action 0B0: the forward did not run before"},
        Broken{"0F0,0SEND_F0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "action 0B0: its gradients were not received"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1B0,1B0\n", "the backward ran before"},
        Broken{"0F0,0SEND_F0,0F1,0SEND_F1\n1RECV_F0,1F0,1RECV_F1,1F1,1B1\n", "sums would change their order"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1SEND_B0\n", "the backward did not run before"},
        Broken{"0F0,0SEND_F0,0RECV_B0,0B0,0SEND_B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "there is nothing to send"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1RECV_B0,1F0\n", "no stage sends gradients to this one"},
        Broken{"0F0,0SEND_F0,0RECV_B0,0RECV_B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "the gradients were received before"},
        Broken{"0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0\n", "the schedule has no 1SEND_B0"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "the schedule has no 0B0"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1B0\n", "the schedule has no 0B0"},
        Broken{"0F0,0F1,0F2,0SEND_F0,0SEND_F1,0SEND_F2\n1RECV_F1,1F1,1RECV_F0,1F0\n", "the schedule has no 1F2"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1F0\n", "the forward ran before; hint: leave one of the two out"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1SEND_F0\n", "no stage needs values of this one"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1RECV_B0\n", "no stage sends gradients to this one"},
        Broken{"0RECV_B0,0F0,0SEND_F0\n1RECV_F0,1F0\n", "the forward did not run before; hint: 0F0 before it"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1W0\n", "the gradients of the inputs come first; hint: 1I0 before it"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1B0,1W0\n", "the gradients of the weights were computed before"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1B0,1I0\n", "the backward ran before"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1I0,1W0,1B0\n", "the backward ran before"},
        Broken{"0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1I0,1SEND_B0\n", "the schedule has no 1W0"},
        Broken{"0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0,1SEND_B0\n", "the gradients were sent before"},
        Broken{"0F0,0SEND_F0,0RECV_B0,0B0,0SEND_B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "no stage sent values to this one"},
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1REDUCE_GRAD\n", "0 of 1 microbatches have added their gradients"},
        Broken{
            "0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD,0REDUCE_GRAD\n1RECV_F0,1F0,1B0,1SEND_B0\n",
            "the gradients were reduced before"},
        Broken{
            "0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD\n1RECV_F0,1F0,1B0,1SEND_B0\n",
            "the schedule has no 1REDUCE_GRAD; hint: other stages have one"}));

TEST(Validate, OneNumberOfSevenDigitsCostsNoMemory) {
  EXPECT_THAT(
      error_of([] { validate(parse_csv("0F9999999\n", "test"), {}); }).message(), HasSubstr("the schedule has no 0F0"));
}

TEST(Validate, ShowsADeadlockAsItsCycle) {
  // Each rank waits for gradients or values that the other one would send after its own wait.
  const Schedule schedule = parse_csv(
      "0F0,0SEND_F0,0RECV_B0,0B0,0F1,0SEND_F1,0RECV_B1,0B1\n"
      "1RECV_F0,1F0,1RECV_F1,1F1,1B0,1SEND_B0,1B1,1SEND_B1\n",
      "test");
  const Error error = error_of([&] { validate(schedule, chain_edges(2)); });
  EXPECT_EQ(error.code(), ErrorCode::input);
  EXPECT_EQ(
      error.message(),
      "the schedule deadlocks: rank 0 waits at position 2, 0RECV_B0, for 1SEND_B0 of rank 1, rank 1 waits at position "
      "2, 1RECV_F1, for 0SEND_F1 of rank 0; rank 0: 0F0 0SEND_F0 >0RECV_B0< 0B0 0F1 0SEND_F1 0RECV_B1 | rank 1: "
      "1RECV_F0 1F0 >1RECV_F1< 1F1 1B0 1SEND_B0 1B1");
  EXPECT_THAT(error.hint(), HasSubstr("behind the send that another rank waits for"));
}

TEST(Validate, ShowsARankThatWaitsForItself) {
  const Schedule schedule = parse_csv("1RECV_F0,1F0,0F0,0SEND_F0\n", "test");
  EXPECT_THAT(
      error_of([&] { validate(schedule, chain_edges(2)); }).message(),
      HasSubstr("rank 0 waits at position 0, 1RECV_F0, for 0SEND_F0 of rank 0; rank 0: >1RECV_F0< 1F0 0F0 0SEND_F0"));
}

// A cycle of many ranks: stage s + 1 of the loop waits for s, and rank 0, which has the first and the last stage, waits
// for the last. Ranks outside of the cycle that wait for it are not shown.
TEST(Validate, ShowsTheFirstEightOfALongCycle) {
  constexpr int kRanks = 12;
  Schedule schedule = lower(fill_drain(kRanks + 1, 1, false, kRanks), chain_edges(kRanks + 1));
  std::rotate(schedule.ranks[0].begin(), schedule.ranks[0].begin() + 2, schedule.ranks[0].end());  // stage 12 first
  const Error error = error_of([&] { validate(schedule, chain_edges(kRanks + 1)); });
  EXPECT_THAT(error.message(), HasSubstr("rank 0 waits at position 0, 12RECV_F0, for 11SEND_F0 of rank 11"));
  EXPECT_THAT(error.message(), HasSubstr("and 4 more ranks; "));
}

TEST(Validate, HoldsActivationsToALimit) {
  const StageEdges edges = chain_edges(4);
  const Schedule schedule = lower(make_schedule("1f1b", 4, 1, 8, true), edges);
  EXPECT_NO_THROW(validate(schedule, edges, {.activations = {.per_rank = 4}}));
  const Error pairs = error_of([&] { validate(schedule, edges, {.activations = {.per_rank = 3}}); });
  EXPECT_THAT(
      pairs.message(), HasSubstr("schedule of rank 0, position 6, action 0F3: activations held are 4, the limit is 3"));
  EXPECT_THAT(pairs.hint(), HasSubstr("smaller microbatches"));
  const ActivationLimit bytes{.per_rank = 4000, .by_stage = {1000, 1000, 3000, 100}};
  EXPECT_THAT(
      error_of([&] { validate(schedule, edges, {.activations = bytes}); }).message(),
      HasSubstr("action 2F1: activations held are 6000, the limit is 4000"));
}

TEST(Validate, MessagesBetweenTwoRanksMayHaveToComeInOrder) {
  const StageEdges edges = chain_edges(2);
  const Schedule crossed = parse_csv("0F0,0SEND_F0,0F1,0SEND_F1\n1RECV_F1,1F1,1RECV_F0,1F0\n", "test");
  EXPECT_NO_THROW(validate(crossed, edges));
  const Error error = error_of([&] { validate(crossed, edges, {.messages_in_order = true}); });
  EXPECT_THAT(
      error.message(),
      HasSubstr("rank 1, position 0, action 1RECV_F1: the next message of rank 0 is that of 0SEND_F0"));
  for (const char* name : {"fill-drain", "1f1b", "zb-h1"}) {
    const Schedule lowered = lower(make_schedule(name, 4, 1, 8, true), chain_edges(4));
    EXPECT_NO_THROW(validate(lowered, chain_edges(4), {.messages_in_order = true})) << name;
  }
}

TEST(Validate, RefusesForeignStagesAndMicrobatches) {
  Schedule schedule = lower(fill_drain(2, 1), chain_edges(2));
  schedule.ranks[0].push_back({1, ActionKind::F, 0});
  EXPECT_THAT(
      error_of([&] { validate(schedule, chain_edges(2)); }).message(), HasSubstr("stage 1 is not on this rank"));
  schedule.ranks[0].back() = {0, ActionKind::F, 5};
  EXPECT_THAT(
      error_of([&] { validate(schedule, chain_edges(2)); }).message(),
      HasSubstr("there are 2 stages and 1 microbatches"));
}

}  // namespace
}  // namespace shardpipe::schedule
