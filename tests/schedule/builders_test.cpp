#include "schedule/builders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "support/errors.h"

namespace shardpipe::schedule {
namespace {

using test::error_of;
using ::testing::HasSubstr;

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

TEST(Builders, NamesAndPlaces) {
  EXPECT_THAT(
      schedule_names(), ::testing::ElementsAre("fill-drain", "1f1b", "interleaved", "looped-bfs", "zb-h1", "zb-v"));
  EXPECT_EQ(default_virtual_stages("1f1b"), 1);
  EXPECT_EQ(default_virtual_stages("zb-v"), 2);
  EXPECT_EQ(rank_of_stage("interleaved", 7, 4), 3);
  EXPECT_EQ(make_schedule("zb-v", 3, 2, 1, true).rank_of_stage, (std::vector<int>{0, 1, 2, 2, 1, 0}));
  EXPECT_EQ(make_schedule("looped-bfs", 3, 2, 1, true).rank_of_stage, (std::vector<int>{0, 1, 2, 0, 1, 2}));
}

// The compute actions of the table in torch-neuronx's Train1F1BSchedule, 4 stages and 6 microbatches.
TEST(OneFOneB, GoldenOrder) {
  EXPECT_EQ(
      to_csv(make_schedule("1f1b", 4, 1, 6, true)),
      "0F0,0F1,0F2,0F3,0B0,0F4,0B1,0F5,0B2,0B3,0B4,0B5\n"
      "1F0,1F1,1F2,1B0,1F3,1B1,1F4,1B2,1F5,1B3,1B4,1B5\n"
      "2F0,2F1,2B0,2F2,2B1,2F3,2B2,2F4,2B3,2F5,2B4,2B5\n"
      "3F0,3B0,3F1,3B1,3F2,3B2,3F3,3B3,3F4,3B4,3F5,3B5\n");
}

// The rule in words: min(p - rank - 1, m) forwards first, then a forward before each backward.
TEST(OneFOneB, FollowsItsRule) {
  for (int p = 2; p <= 16; ++p) {
    for (const int m : {1, 4, 8, 32}) {
      const Schedule schedule = make_schedule("1f1b", p, 1, m, true);
      for (int rank = 0; rank < p; ++rank) {
        const int warm_up = std::min(p - rank - 1, m);
        std::vector<Action> expected;
        for (int i = 0; i < warm_up; ++i) {
          expected.push_back({rank, ActionKind::F, i});
        }
        for (int i = 0; i < m - warm_up; ++i) {
          expected.push_back({rank, ActionKind::F, warm_up + i});
          expected.push_back({rank, ActionKind::B, i});
        }
        for (int i = m - warm_up; i < m; ++i) {
          expected.push_back({rank, ActionKind::B, i});
        }
        EXPECT_EQ(schedule.ranks[static_cast<size_t>(rank)], expected) << p << " ranks, " << m << " microbatches";
      }
    }
  }
}

// The compute actions of TrainInterleavedSchedule: 2 ranks of 2 stages, 4 microbatches.
TEST(Interleaved, GoldenOrder) {
  EXPECT_EQ(
      to_csv(make_schedule("interleaved", 2, 2, 4, true)),
      "0F0,0F1,2F0,2F1,0F2,2B0,0F3,2B1,2F2,0B0,2F3,0B1,2B2,2B3,0B2,0B3\n"
      "1F0,1F1,3F0,3B0,3F1,3B1,1F2,1B0,1F3,1B1,3F2,3B2,3F3,3B3,1B2,1B3\n");
}

TEST(Interleaved, RunsAllForwardsFirstWhenARoundIsAll) {
  EXPECT_EQ(
      to_csv(make_schedule("interleaved", 2, 2, 2, true)),
      "0F0,0F1,2F0,2F1,2B0,2B1,0B0,0B1\n1F0,1F1,3F0,3F1,3B0,3B1,1B0,1B1\n");
}

// W follows I with a lag of `rank` microbatches: as many in flight everywhere as on rank 0.
TEST(ZbH1, Order) {
  EXPECT_EQ(
      to_csv(make_schedule("zb-h1", 3, 1, 4, true)),
      "0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3\n"
      "1F0,1F1,1I0,1F2,1I1,1W0,1F3,1I2,1W1,1I3,1W2,1W3\n"
      "2F0,2I0,2F1,2I1,2F2,2I2,2W0,2F3,2I3,2W1,2W2,2W3\n");
}

// Each stage's forwards in microbatch order, whatever the number of microbatches.
TEST(Builders, ForwardsOnly) {
  EXPECT_EQ(to_csv(make_schedule("interleaved", 2, 2, 3, false)), "0F0,0F1,2F0,2F1,0F2,2F2\n1F0,1F1,3F0,3F1,1F2,3F2\n");
  EXPECT_EQ(to_csv(make_schedule("looped-bfs", 2, 2, 3, false)), "0F0,0F1,0F2,2F0,2F1,2F2\n1F0,1F1,1F2,3F0,3F1,3F2\n");
  EXPECT_EQ(to_csv(make_schedule("zb-v", 2, 2, 2, false)), "0F0,0F1,3F0,3F1\n1F0,1F1,2F0,2F1\n");
  EXPECT_EQ(to_csv(make_schedule("interleaved", 2, 1, 3, false)), "0F0,0F1,0F2\n1F0,1F1,1F2\n");
  for (const char* name : {"fill-drain", "1f1b", "zb-h1"}) {
    EXPECT_EQ(make_schedule(name, 3, 1, 5, false), fill_drain(3, 5)) << name;
  }
}

TEST(Builders, FillDrainIsLoopedBreadthFirst) {
  EXPECT_EQ(make_schedule("fill-drain", 2, 2, 3, true), fill_drain(4, 3, true, 2));
  EXPECT_EQ(make_schedule("looped-bfs", 2, 2, 3, true), fill_drain(4, 3, true, 2));
}

struct Refused {
  const char* name;
  int p, v, m;
  const char* message;
};
class BuilderRefuses : public ::testing::TestWithParam<Refused> {};

TEST_P(BuilderRefuses, AndSaysWhatToDo) {
  const auto& [name, p, v, m, message] = GetParam();
  const Error error = error_of([&, name = name, p = p, v = v, m = m] { make_schedule(name, p, v, m, true); });
  EXPECT_EQ(error.code(), ErrorCode::usage);
  EXPECT_THAT(error.what(), HasSubstr(message));
}

INSTANTIATE_TEST_SUITE_P(
    All,
    BuilderRefuses,
    ::testing::Values(
        Refused{
            "2f2b", 2, 1, 2,
            "there is no schedule \"2f2b\"; hint: one of fill-drain, 1f1b, interleaved, looped-bfs, zb-h1, zb-v"},
        Refused{"1f1b", 0, 1, 2, "0 ranks with 1 stages each and 2 microbatches: all must be at least 1"},
        Refused{"1f1b", 2, -1, 2, "all must be at least 1"},
        Refused{"1f1b", 2, 1, 0, "all must be at least 1"},
        Refused{"fill-drain", 2147483647, 2147483647, 2147483647, "stages x microbatches may be at most 8388608"},
        Refused{"fill-drain", 4096, 1, 4096, "stages x microbatches may be at most 8388608"},
        Refused{
            "1f1b", 2, 2, 4,
            "schedule 1f1b has one stage a rank, not 2; hint: with several stages a rank it is "
            "called interleaved"},
        Refused{"zb-h1", 2, 2, 4, "schedule zb-h1 has one stage a rank, not 2; hint: zb-v"},
        Refused{"zb-v", 2, 1, 4, "schedule zb-v has two stages a rank, not 1; hint: zb-h1 has one"},
        Refused{"zb-v", 2, 3, 4, "schedule zb-v has two stages a rank, not 3"},
        Refused{
            "interleaved", 2, 1, 4, "at least two stages a rank, not 1; hint: with one stage a rank it is called 1f1b"},
        Refused{"interleaved", 4, 2, 6, "a multiple of its 4 ranks, not 6; hint: 8 microbatches"},
        Refused{"interleaved", 4, 2, 3, "a multiple of its 4 ranks, not 3; hint: 4 microbatches"}));

}  // namespace
}  // namespace shardpipe::schedule
