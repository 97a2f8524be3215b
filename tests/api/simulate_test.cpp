#include "shardpipe/simulate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/errors.h"

namespace shardpipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ScheduleSimulation, AnswersInNumbersTextAndPage) {
  const ScheduleSimulation step({.schedule = "zb-h1", .pp = 2, .chunks = 2, .input_gradient = 2});
  EXPECT_EQ(step.pp(), 2);
  EXPECT_EQ(step.virtual_stages(), 1);
  EXPECT_EQ(step.chunks(), 2);
  EXPECT_EQ(step.makespan(), 2 * 4 + 2);
  EXPECT_EQ(step.closed_form_makespan(), step.makespan());
  EXPECT_DOUBLE_EQ(step.bubble_fraction(), 0.2);
  EXPECT_THAT(step.peak_activations(), ElementsAre(2, 2));
  EXPECT_THAT(
      step.actions(1),
      ElementsAre(
          "1RECV_F0", "1F0", "1I0", "1SEND_B0", "1RECV_F1", "1F1", "1I1", "1SEND_B1", "1W0", "1W1", "1REDUCE_GRAD"));
  EXPECT_THAT(step.text(), HasSubstr("closed form       10, bubble 20 %"));
  EXPECT_THAT(step.html(), HasSubstr("<h1>Schedule zb-h1: 2 ranks, 2 microbatches</h1>"));
}

TEST(ScheduleSimulation, RefusesRanksThatAreNotThere) {
  const ScheduleSimulation step({.schedule = "fill-drain", .pp = 1, .chunks = 1, .transfer = 1});
  EXPECT_TRUE(std::isnan(step.closed_form_makespan()));
  for (const int rank : {-1, 1}) {
    test::expect_error(ErrorCode::usage, "of a schedule with 1 ranks", [&] { step.actions(rank); });
  }
}

}  // namespace
}  // namespace shardpipe
