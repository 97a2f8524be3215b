#include "schedule/host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "schedule/builders.h"

namespace shardpipe::schedule {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pointwise;

Schedule fill_drain(int stages, int microbatches, bool backward) {
  return lower(make_schedule("fill-drain", stages, 1, microbatches, backward), chain_edges(stages));
}

double makespan(const Schedule& lists, const StageEdges& edges, const Costs& costs, double together) {
  return simulate(lists, edges, on_host(lists, edges, costs, together)).makespan;
}

// Two ranks, two microbatches, a forward takes 1, a message 0.5, by hand.
TEST(Host, DividesTheTimeByHand) {
  const StageEdges edges = chain_edges(2);
  const Schedule lists = fill_drain(2, 2, false);
  const Costs costs = uniform_costs(2, 1, 0, 0, 0.5);
  EXPECT_DOUBLE_EQ(makespan(lists, edges, costs, 2), 3.5);
  // One core: 0F0 0-1; alone until the message is there, 0F1 has 0.5 left at 1.5; both at half speed, 0F1 1-2.5, then
  // 1F0 has 0.5 left: 1.5-3; 1F1, whose message came at 3, 3-4.
  const Simulation one = simulate(lists, edges, on_host(lists, edges, costs, 1));
  EXPECT_DOUBLE_EQ(one.makespan, 4);
  EXPECT_DOUBLE_EQ(one.ranks[0][2].end, 2.5);
  EXPECT_DOUBLE_EQ(one.ranks[1][1].start, 1.5);
  EXPECT_DOUBLE_EQ(one.ranks[1][1].end, 3);
  // Work and a half at a time: both at 3/4 from 1.5 on, 0F1 ends at 1.5 + 0.5 / 0.75.
  EXPECT_DOUBLE_EQ(simulate(lists, edges, on_host(lists, edges, costs, 1.5)).ranks[0][2].end, 1.5 + 0.5 / 0.75);
}

// As many at a time as there are ranks: what simulate() says without a host.
TEST(Host, WithoutSharingIsTheSameSimulation) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> cost(0.1, 3);
  for (const char* name : {"fill-drain", "1f1b", "interleaved", "zb-h1"}) {
    const int p = 4;
    const int v = std::string(name) == "interleaved" ? 2 : 1;
    const StageEdges edges = chain_edges(p * v);
    const Schedule lists = lower(make_schedule(name, p, v, 8, true), edges, true);
    Costs costs = uniform_costs(p * v, 0, 0, 0, 0.2);
    for (size_t stage = 0; stage < costs.forward.size(); ++stage) {
      costs.forward[stage] = cost(random);
      costs.input_gradient[stage] = cost(random);
      costs.weight_gradient[stage] = cost(random);
    }
    EXPECT_NEAR(makespan(lists, edges, costs, p), simulate(lists, edges, costs).makespan, 1e-9) << name;
    // However the work is divided, it takes at least its sum, and on one core no less than that either.
    double work = 0;
    for (const double busy : simulate(lists, edges, costs).busy) {
      work += busy;
    }
    EXPECT_GE(makespan(lists, edges, costs, 1), work - 1e-9) << name;
    EXPECT_GE(makespan(lists, edges, costs, 2), work / 2 - 1e-9) << name;
    EXPECT_LE(makespan(lists, edges, costs, 2), makespan(lists, edges, costs, 1) + 1e-9) << name;
  }
}

TEST(Host, StepsWithTokensFollowOneAnother) {
  const StageEdges edges = chain_edges(2);
  const Costs costs = uniform_costs(2, 1, 0, 0, 0.25);
  const auto ends = [&](int lanes, double together) {
    return step_ends(add_token_exchange(fill_drain(2, lanes, false), false), edges, costs, 0.5, together, 20);
  };
  const auto begins = [](const std::vector<double>& all) { return std::vector(all.begin(), all.begin() + 4); };
  // One lane: through both stages, a message between them, the tokens back.
  EXPECT_THAT(begins(ends(1, 2)), ElementsAre(2.75, 5.5, 8.25, 11));
  // Two lanes fill the pipeline but for the messages: a lane's cycle is the same.
  EXPECT_THAT(begins(ends(2, 2)), ElementsAre(3.75, 6.5, 9.25, 12));
  // Four keep both ranks busy: four forwards a step.
  EXPECT_THAT(begins(ends(4, 2)), ElementsAre(5.75, 9.75, 13.75, 17.75));
  // On one core the work is all that counts: eight forwards a step.
  const std::vector<double> shared = ends(4, 1);
  EXPECT_NEAR((shared[15] - shared[3]) / 12, 8, 0.01);
  // A single rank sends no tokens.
  EXPECT_THAT(
      step_ends(add_token_exchange(fill_drain(1, 2, false), false), {}, uniform_costs(1, 1, 0, 0), 0.5, 1, 2),
      Pointwise(DoubleNear(1e-12), {2.0, 4.0}));
}

}  // namespace
}  // namespace shardpipe::schedule
