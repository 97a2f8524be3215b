#include "schedule/simulate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "schedule/builders.h"
#include "schedule/validate.h"
#include "support/errors.h"

namespace shardpipe::schedule {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Simulation run(const char* name, int p, int v, int m, double f, double i, double w, double transfer = 0) {
  const StageEdges edges = chain_edges(p * v);
  return simulate(
      lower(make_schedule(name, p, v, m, true), edges, true), edges, uniform_costs(p * v, f, i, w, transfer));
}

// Two stages, two microbatches, F = 1, B = 2, a message 0.5, by hand.
TEST(Simulate, TimesByHand) {
  const Simulation result = run("fill-drain", 2, 1, 2, 1, 1, 1, 0.5);
  // rank 0: F0 0-1, F1 1-2; rank 1: F0 1.5-2.5, F1 2.5-3.5, B0 3.5-5.5, B1 5.5-7.5; rank 0: B0 6-8, B1 8-10.
  EXPECT_EQ(result.makespan, 10);
  EXPECT_EQ(result.bubble_fraction, (20.0 - 12) / 20);
  EXPECT_THAT(result.busy, ElementsAre(6, 6));
  EXPECT_THAT(result.peak_activations, ElementsAre(2, 2));
  std::string rank1;
  for (const TimedAction& timed : result.ranks[1]) {
    rank1 += fmt::format("{} {}-{}, ", to_string(timed.action), timed.start, timed.end);
  }
  EXPECT_EQ(
      rank1,
      "1RECV_F0 0-1.5, 1F0 1.5-2.5, 1RECV_F1 2.5-2.5, 1F1 2.5-3.5, 1B0 3.5-5.5, 1SEND_B0 5.5-5.5, 1B1 5.5-7.5, "
      "1SEND_B1 7.5-7.5, 1REDUCE_GRAD 7.5-7.5, ");
  std::string memory;
  for (const MemoryPoint& point : result.memory[0]) {
    memory += fmt::format("{}:{} ", point.time, point.amount);
  }
  EXPECT_EQ(memory, "0:1 1:2 8:1 10:0 ");
}

TEST(Simulate, CostsByStageEdgeAndAction) {
  const StageEdges edges = {{0, 1}, {0, 2}, {1, 2}};
  const Schedule lowered = lower(make_schedule("fill-drain", 3, 1, 1, true), edges, true);
  Costs costs;
  costs.forward = {1, 2, 3};
  costs.input_gradient = {1, 1, 1};
  costs.weight_gradient = {0, 1, 2};
  costs.reduce_gradient = {0, 10, 0};
  costs.transfer = 1;
  costs.forward_transfer = {{{0, 2}, 7}};
  costs.backward_transfer = {{{0, 1}, 5}};
  costs.activations = {100, 10, 1};
  // Stage 2 has its inputs at 8 (from 0) and 5 (from 1); B 11-14; stage 1 B 15-17, reduces until 27; stage 0 has both
  // gradients at 15 and 22, B 22-23.
  const Simulation result = simulate(lowered, edges, costs);
  EXPECT_EQ(result.makespan, 27);
  EXPECT_EQ(result.ranks[0].back().end, 23);
  EXPECT_THAT(result.peak_memory, ElementsAre(100, 10, 1));
  costs.duration = [](const Action& action) { return action.kind == ActionKind::F ? 4.0 : 0.0; };
  EXPECT_EQ(simulate(lowered, edges, costs).makespan, 4 + 7 + 4 + 1 + 5);
}

TEST(Simulate, MessagesOfOneLinkMayQueue) {
  const StageEdges edges = chain_edges(2);
  const Schedule lowered = lower(make_schedule("fill-drain", 2, 1, 3, false), edges);
  Costs costs = uniform_costs(2, 1, 0, 0, 5);
  EXPECT_EQ(simulate(lowered, edges, costs).makespan, 3 + 5 + 1);
  costs.messages_queue = true;
  EXPECT_EQ(simulate(lowered, edges, costs).makespan, 1 + 3 * 5 + 1);
}

TEST(Simulate, MessagesWithinARankCostNothing) {
  const StageEdges edges = chain_edges(4);
  const Schedule lowered = lower(make_schedule("zb-v", 2, 2, 1, false), edges);
  EXPECT_EQ(simulate(lowered, edges, uniform_costs(4, 1, 1, 1, 10)).makespan, 4 + 2 * 10);
}

TEST(Simulate, WithoutBackwardsActivationsEndWithTheForward) {
  const StageEdges edges = chain_edges(2);
  const Simulation result = simulate(lower(fill_drain(2, 5), edges), edges, uniform_costs(2, 1, 1, 1));
  EXPECT_THAT(result.peak_activations, ElementsAre(1, 1));
  EXPECT_EQ(result.makespan, 6);
}

TEST(Simulate, RefusesWhatCannotEnd) {
  const StageEdges edges = chain_edges(2);
  const Schedule stuck = parse_csv("0F0,0RECV_B0,0B0,0SEND_F0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "test");
  EXPECT_THAT(
      error_of([&] { simulate(stuck, edges, uniform_costs(2, 1, 1, 1)); }).message(),
      HasSubstr("the schedule deadlocks: rank 0 waits at position 1, 0RECV_B0"));
  EXPECT_THAT(
      error_of([&] { simulate(stuck, edges, uniform_costs(3, 1, 1, 1)); }).message(),
      HasSubstr("costs of 3 stages for a schedule of 2 stages"));
}

struct Numbers {
  double f, i, w;
};
constexpr Numbers kCosts[] = {{1, 1, 1}, {2, 3, 1}, {3, 1, 1}, {1, 3, 2}, {1, 1, 3}, {2, 1, 2}, {7, 5, 2}, {5, 2, 7}};

// peers' formulas, term by term, for p ranks, v stages a rank and m microbatches; B = I + W.
TEST(ClosedForm, OfTheBubble) {
  for (const int p : {1, 2, 3, 4, 5, 8}) {
    for (const int m : {1, 2, 3, 4, 5, 6, 8, 15, 16, 24, 40}) {
      for (const auto& [f, i, w] : kCosts) {
        const double all = f + i + w;
        EXPECT_EQ(run("fill-drain", p, 1, m, f, i, w).makespan, m * all + (p - 1) * all);
        EXPECT_EQ(run("1f1b", p, 1, m, f, i, w).makespan, m * all + (p - 1) * all);
        for (const int v : {2, 3}) {
          const double looped = run("looped-bfs", p, v, m, f, i, w).makespan;
          EXPECT_EQ(looped, (v - 1) * std::max(m, p) * all + (m + p - 1) * all);
          if (m % p == 0) {
            EXPECT_EQ(run("interleaved", p, v, m, f, i, w).makespan, v * m * all + (p - 1) * all);
          }
        }
        if (m >= p) {
          // (p - 1) (F + B - 2 W) where no part is shorter than W.
          const double zero_bubble = run("zb-h1", p, 1, m, f, i, w).makespan;
          EXPECT_EQ(zero_bubble, m * all + (p - 1) * (f + i - std::min({f, i, w}))) << p << " " << m;
        }
      }
      // Only the way down of the first microbatch is left.
      if (m >= 2 * p - 1) {
        EXPECT_EQ(run("zb-v", p, 2, m, 1, 1, 1).makespan, 2 * m * 3 + (p - 1)) << p << " " << m;
      }
    }
  }
}

TEST(ClosedForm, IsWhatTheSimulatorFinds) {
  int compared = 0;
  for (const std::string& name : schedule_names()) {
    for (const int p : {1, 2, 4, 7}) {
      for (const int m : {1, 2, 4, 7, 14, 28}) {
        const int v = default_virtual_stages(name);
        if (name == "interleaved" && m % p != 0) {
          continue;
        }
        for (const auto& [f, i, w] : kCosts) {
          const double bubble = closed_form_bubble(name, p, v, m, f, i, w);
          if (!std::isnan(bubble)) {
            const Simulation result = run(name.c_str(), p, v, m, f, i, w);
            EXPECT_EQ(result.makespan, v * m * (f + i + w) + bubble) << name << " " << p << " " << m;
            EXPECT_DOUBLE_EQ(result.bubble_fraction, bubble / result.makespan);
            ++compared;
          }
        }
      }
    }
  }
  EXPECT_GT(compared, 600);
}

// In units of a whole rank's microbatch, as the papers count: stages a rank hold 1/v each.
TEST(PeakActivations, AreThePapers) {
  constexpr int p = 8;
  constexpr int m = 32;
  EXPECT_THAT(run("fill-drain", p, 1, m, 1, 1, 1).peak_activations, ::testing::Each(m));
  EXPECT_THAT(run("looped-bfs", p, 2, m, 1, 1, 1).peak_activations, ::testing::Each(2 * m));
  EXPECT_THAT(run("1f1b", p, 1, m, 1, 1, 1).peak_activations, ElementsAre(8, 7, 6, 5, 4, 3, 2, 1));
  EXPECT_THAT(run("zb-h1", p, 1, m, 1, 1, 1).peak_activations, ::testing::Each(p));
  EXPECT_THAT(run("zb-v", p, 2, m, 1, 1, 1).peak_activations, ::testing::Each(2 * p));
  // p v (1 + (p - 1) / (p v)) pairs on rank 0.
  EXPECT_EQ(run("interleaved", p, 2, m, 1, 1, 1).peak_activations[0], p * 2 + p - 1);
  EXPECT_EQ(run("interleaved", p, 4, m, 1, 1, 1).peak_activations[0], p * 4 + p - 1);
}

}  // namespace
}  // namespace shardpipe::schedule
