#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "schedule/builders.h"
#include "schedule/validate.h"
#include "support/errors.h"

namespace shardpipe::schedule {
namespace {

using test::error_of;
using ::testing::HasSubstr;

StageEdges chain(int stages) {
  StageEdges edges;
  for (int s = 0; s + 1 < stages; ++s) {
    edges.emplace_back(s, s + 1);
  }
  return edges;
}

TEST(Action, PrintsAndParses) {
  for (const char* text : {"0F0", "1RECV_F3", "12SEND_F7", "0B0", "1SEND_B4", "0RECV_B4", "3SEND_T0", "0RECV_T11"}) {
    EXPECT_EQ(to_string(parse_action(text)), text);
  }
}

TEST(Action, RefusesOtherText) {
  for (const char* text : {"", "F0", "0F", "0X0", "0F0x", "-1F0", "0F-1", "99999999999F0", "0f0"}) {
    const Error error = error_of([&] { parse_action(text); });
    EXPECT_EQ(error.code(), ErrorCode::input) << text;
    EXPECT_THAT(error.message(), HasSubstr("is not an action"));
  }
}

// torch.distributed.pipelining's GPipe order, forwards only.
TEST(FillDrain, RunsForwardsInMicrobatchOrder) {
  EXPECT_EQ(to_csv(fill_drain(2, 3)), "0F0,0F1,0F2\n1F0,1F1,1F2\n");
}

TEST(FillDrain, RunsBackwardsAfterAllForwards) {
  EXPECT_EQ(to_csv(fill_drain(2, 2, true)), "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n");
}

TEST(FillDrain, RefusesNothingToDo) {
  EXPECT_EQ(to_csv(fill_drain(4, 2, true, 2)), "0F0,0F1,2F0,2F1,2B0,2B1,0B0,0B1\n1F0,1F1,3F0,3F1,3B0,3B1,1B0,1B1\n");
  EXPECT_THAT(error_of([] { fill_drain(0, 1); }).message(), HasSubstr("0 stages and 1 microbatches"));
  EXPECT_EQ(error_of([] { fill_drain(1, 0); }).code(), ErrorCode::usage);
}

TEST(Lowering, PutsMessagesAroundForwards) {
  EXPECT_EQ(to_csv(lower(fill_drain(3, 1), chain(3))), "0F0,0SEND_F0\n1RECV_F0,1F0,1SEND_F0\n2RECV_F0,2F0\n");
}

// The actions of torch.distributed.pipelining's _add_send_recv for GPipe on two stages.
TEST(Lowering, PutsMessagesAroundBackwards) {
  EXPECT_EQ(to_csv(lower(fill_drain(2, 1, true), chain(2))), "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n");
}

TEST(Lowering, SkipConnectionGoesDirectly) {
  const StageEdges edges = {{0, 2}, {1, 2}};
  EXPECT_EQ(to_csv(lower(fill_drain(3, 1), edges)), "0F0,0SEND_F0\n1F0,1SEND_F0\n2RECV_F0,2F0\n");
}

TEST(Lowering, TokensTravelFromTheLastStage) {
  const Schedule lowered = lower(fill_drain(2, 2), chain(2));
  EXPECT_EQ(
      to_csv(add_token_exchange(lowered, true)),
      "0F0,0SEND_F0,0F1,0SEND_F1\n1RECV_F0,1F0,1SEND_T0,1RECV_F1,1F1,1SEND_T1\n");
  EXPECT_EQ(
      to_csv(add_token_exchange(lowered, false)),
      "0RECV_T0,0F0,0SEND_F0,0RECV_T1,0F1,0SEND_F1\n1RECV_F0,1F0,1SEND_T0,1RECV_F1,1F1,1SEND_T1\n");
}

TEST(Csv, RoundTripsAndIgnoresIdleCells) {
  const Schedule schedule = lower(fill_drain(3, 4), chain(3));
  EXPECT_EQ(parse_csv(to_csv(schedule), "test"), schedule);
  EXPECT_EQ(parse_csv("0F0, ,0F1\n,1F0,1F1\r\n", "test"), fill_drain(2, 2));
}

TEST(Csv, NamesFileAndLine) {
  const Error bad = error_of([] { parse_csv("0F0\n1Q0\n", "my.csv"); });
  EXPECT_THAT(bad.message(), HasSubstr("my.csv, line 2"));
  const Error twice = error_of([] { parse_csv("0F0\n0F1\n", "my.csv"); });
  EXPECT_THAT(twice.message(), HasSubstr("stage 0 is on rank 0 and on rank 1"));
  // A number of seven digits must not cost megabytes.
  const Error gap = error_of([] { parse_csv("0F0\n9999999F0\n", "my.csv"); });
  EXPECT_THAT(gap.message(), HasSubstr("stage 1 has no action in my.csv, which has actions of stage 9999999"));
}

TEST(Validate, AcceptsRandomPipelines) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const int stages = 1 + static_cast<int>(random() % 6);
    StageEdges edges = chain(stages);
    for (int s = 0; s + 2 < stages; ++s) {
      if (random() % 2 == 0) {
        edges.emplace_back(s, s + 2);
      }
    }
    const int microbatches = 1 + static_cast<int>(random() % 5);
    for (int ranks = 1; ranks <= stages; ++ranks) {
      EXPECT_NO_THROW(validate(lower(fill_drain(stages, microbatches, round % 2 == 1, ranks), edges), edges));
    }
  }
}

struct Broken {
  const char* csv;
  const char* message;
};
class ValidateRefuses : public ::testing::TestWithParam<Broken> {};

TEST_P(ValidateRefuses, AndSaysWhere) {
  const Schedule schedule = parse_csv(GetParam().csv, "test");
  const Error error = error_of([&] { validate(schedule, chain(2)); });
  EXPECT_EQ(error.code(), ErrorCode::input);
  EXPECT_THAT(error.message(), HasSubstr(GetParam().message));
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
        Broken{"0F0,0SEND_F0\n1RECV_F0,1F0,1B0\n", "the schedule has no 0B0"}));

TEST(Validate, RefusesForeignStagesAndMicrobatches) {
  Schedule schedule = lower(fill_drain(2, 1), chain(2));
  schedule.ranks[0].push_back({1, ActionKind::F, 0});
  EXPECT_THAT(error_of([&] { validate(schedule, chain(2)); }).message(), HasSubstr("stage 1 is not on this rank"));
  schedule.ranks[0].back() = {0, ActionKind::F, 5};
  EXPECT_THAT(
      error_of([&] { validate(schedule, chain(2)); }).message(), HasSubstr("there are 2 stages and 1 microbatches"));
}

}  // namespace
}  // namespace shardpipe::schedule
