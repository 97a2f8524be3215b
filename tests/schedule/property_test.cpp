// Random schedules, costs and skip connections: every one validates, ends, and is as long as it must at least be.
// SHARDPIPE_FUZZ_SCALE multiplies their number.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <set>

#include "base/error.h"
#include "graph/fuzz.h"
#include "schedule/builders.h"
#include "schedule/grid.h"
#include "schedule/page.h"
#include "schedule/simulate.h"
#include "schedule/validate.h"

namespace shardpipe::schedule {
namespace {

using test::draw;

double random_cost(std::mt19937& random) {
  return draw(random, 4) == 0 ? static_cast<double>(draw(random, 4)) : static_cast<double>(draw(random, 1000)) / 64;
}

struct Case {
  std::string name;
  int p = 1;
  int v = 1;
  int m = 1;
  bool backward = true;
  StageEdges edges;
  Costs costs;

  std::string text() const {
    std::string skips;
    for (const auto& [from, to] : edges) {
      skips += fmt::format(" {}-{}", from, to);
    }
    return fmt::format("{} p {} v {} m {} backward {} edges{}", name, p, v, m, backward, skips);
  }
};

Case random_case(const std::string& name, std::mt19937& random) {
  Case c{.name = name, .p = 1 + static_cast<int>(draw(random, 9)), .m = 1 + static_cast<int>(draw(random, 24))};
  c.backward = draw(random, 4) != 0;
  c.v = default_virtual_stages(name);
  if (name == "fill-drain" || name == "looped-bfs" || name == "interleaved") {
    c.v += static_cast<int>(draw(random, 3));
  }
  if (name == "interleaved" && c.backward) {
    c.m = c.p * (1 + static_cast<int>(draw(random, 5)));
  }
  const int stages = c.p * c.v;
  std::set<std::pair<int, int>> edges;
  for (const auto& edge : chain_edges(stages)) {
    if (draw(random, 10) != 0) {  // a stage may also have nothing to tell the next
      edges.insert(edge);
    }
  }
  for (size_t i = draw(random, 6); i > 0 && stages > 1; --i) {
    const int from = static_cast<int>(draw(random, static_cast<size_t>(stages - 1)));
    edges.insert({from, from + 1 + static_cast<int>(draw(random, static_cast<size_t>(stages - 1 - from)))});
  }
  c.edges = {edges.begin(), edges.end()};
  c.costs = uniform_costs(stages, 0, 0, 0, random_cost(random));
  for (auto* costs : {&c.costs.forward, &c.costs.input_gradient, &c.costs.weight_gradient}) {
    std::generate(costs->begin(), costs->end(), [&] { return random_cost(random); });
  }
  for (const auto& edge : c.edges) {
    if (draw(random, 3) == 0) {
      c.costs.forward_transfer[edge] = random_cost(random);
      c.costs.backward_transfer[edge] = random_cost(random);
    }
  }
  c.costs.messages_queue = draw(random, 2) == 0;
  return c;
}

// Each rank's actions follow each other, and a forward starts after the ends of those it needs values of.
void expect_consistent(const Case& c, const Schedule& schedule, const Simulation& result) {
  const auto at = [&](int stage, int microbatch) {
    return static_cast<size_t>(stage) * static_cast<size_t>(c.m) + static_cast<size_t>(microbatch);
  };
  std::vector<double> start(static_cast<size_t>(schedule.num_stages * c.m));
  std::vector<double> end(start.size());
  for (const auto& actions : result.ranks) {
    double clock = 0;
    for (const TimedAction& timed : actions) {
      EXPECT_GE(timed.start, clock);
      EXPECT_GE(timed.end, timed.start);
      clock = timed.end;
      if (timed.action.kind == ActionKind::F) {
        start[at(timed.action.stage, timed.action.microbatch)] = timed.start;
        end[at(timed.action.stage, timed.action.microbatch)] = timed.end;
      }
    }
    EXPECT_LE(clock, result.makespan);
  }
  for (const auto& [from, to] : c.edges) {
    for (int microbatch = 0; microbatch < c.m; ++microbatch) {
      EXPECT_GE(start[at(to, microbatch)], end[at(from, microbatch)]);
    }
  }
}

void expect_holds(const Case& c) {
  const Schedule schedule = lower(make_schedule(c.name, c.p, c.v, c.m, c.backward), c.edges, c.m % 2 == 0);
  validate(schedule, c.edges);
  EXPECT_EQ(parse_csv(to_csv(schedule), "its CSV").ranks, schedule.ranks);
  const Simulation result = simulate(schedule, c.edges, c.costs);
  EXPECT_GE(result.makespan, *std::max_element(result.busy.begin(), result.busy.end()) * (1 - 1e-12));
  EXPECT_GE(result.bubble_fraction, 0);
  EXPECT_LE(result.bubble_fraction, 1);
  for (size_t rank = 0; rank < result.ranks.size(); ++rank) {
    EXPECT_EQ(result.ranks[rank].size(), schedule.ranks[rank].size());
    EXPECT_EQ(result.memory[rank].back().amount, 0);
    EXPECT_GE(result.peak_activations[rank], 1);
  }
  expect_consistent(c, schedule, result);
}

TEST(Property, RandomSchedulesValidateAndEnd) {
  std::mt19937 random(20261121);
  const int rounds = test::fuzz_count(1000);
  for (int round = 0; round < rounds; ++round) {
    for (const std::string& name : schedule_names()) {
      const Case c = random_case(name, random);
      SCOPED_TRACE(c.text());
      ASSERT_NO_THROW(expect_holds(c));
      if (::testing::Test::HasFailure()) {
        return;
      }
    }
  }
}

// Two lists of actions with one of them moved: refused, or still a schedule that ends.
TEST(Property, MovedActionsAreRefusedOrEnd) {
  std::mt19937 random(7);
  int refused = 0;
  int ended = 0;
  for (int round = 0; round < test::fuzz_count(2000); ++round) {
    const std::string& name = schedule_names()[draw(random, schedule_names().size())];
    const Case c = random_case(name, random);
    Schedule schedule = lower(make_schedule(c.name, c.p, c.v, c.m, c.backward), c.edges, true);
    auto& actions = schedule.ranks[draw(random, schedule.ranks.size())];
    const size_t from = draw(random, actions.size());
    const Action moved = actions[from];
    actions.erase(actions.begin() + static_cast<std::ptrdiff_t>(from));
    actions.insert(actions.begin() + static_cast<std::ptrdiff_t>(draw(random, actions.size() + 1)), moved);
    SCOPED_TRACE(c.text());
    try {
      validate(schedule, c.edges);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::input);
      ++refused;
      continue;
    }
    ++ended;
    EXPECT_NO_THROW(simulate(schedule, c.edges, c.costs));
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(ended, 100);
}

TEST(Property, EveryScheduleCanBeShown) {
  std::mt19937 random(3);
  for (int round = 0; round < test::fuzz_count(50); ++round) {
    for (const std::string& name : schedule_names()) {
      const Case c = random_case(name, random);
      SCOPED_TRACE(c.text());
      const Simulation result =
          simulate(lower(make_schedule(c.name, c.p, c.v, c.m, c.backward), c.edges, true), c.edges, c.costs);
      const std::string text = grid(result);
      EXPECT_LE(std::count(text.begin(), text.end(), '\n'), c.p + 3);
      EXPECT_EQ(timeline_html(result).find("nan"), std::string::npos);
    }
  }
}

// 512 ranks x 2,048 microbatches in well under 10 s: a second each where nothing else runs.
TEST(Scale, LargeSchedules) {
  constexpr int kRanks = 512;
  constexpr int kMicrobatches = 2048;
  for (const std::string name : {"1f1b", "zb-h1"}) {
    const std::clock_t begin = std::clock();  // of this process: others may use the cores
    const StageEdges edges = chain_edges(kRanks);
    const Schedule schedule = lower(make_schedule(name, kRanks, 1, kMicrobatches, true), edges, true);
    validate(schedule, edges);
    const Simulation result = simulate(schedule, edges, uniform_costs(kRanks, 1, 1, 1));
    EXPECT_EQ(result.makespan, kMicrobatches * 3 + closed_form_bubble(name, kRanks, 1, kMicrobatches, 1, 1, 1));
    EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 10) << name;
  }
}

}  // namespace
}  // namespace shardpipe::schedule
