// Replicas and tensor parallelism by hand: a program whose middle layer is divided, on every mesh, against the whole
// one in one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/text.h"
#include "graph/verify.h"
#include "runtime/batch_run.h"
#include "runtime/shared_state.h"
#include "support/close.h"
#include "support/errors.h"
#include "threads.h"

namespace shardpipe::runtime {
namespace {

using test::error_of;
using ::testing::ElementsAre;

constexpr int64_t kWidth = 4;
constexpr int64_t kHidden = 6;
constexpr int kPlace = 3;  // of the second cut: behind the collective

struct Toy {
  int pp = 1;
  int dp = 1;
  int tp = 1;
  std::vector<int64_t> units = {1};  // of the hidden layer, by part
  int chunks = 0;
};

// x -> linear w0 -> [enter] -> linear w1 (columns) -> tanh, + b1 -> linear w2 (rows) -> [all_reduce] -> + x -> loss
graph::Graph part_graph(int64_t hidden, bool divided) {
  std::string text = "shardpipe-graph 1\ndimension n\ninput %0 \"x\": float32[n, 4]\ninput %1 \"y\": int64[n]\n";
  text += "parameter %2 \"w0\": float32[4, 4]\n";
  text += fmt::format("parameter %3 \"w1\": float32[{}, 4]\n", hidden);
  text += fmt::format("parameter %4 \"w2\": float32[4, {}]\n", hidden);
  text += fmt::format("parameter %5 \"b1\": float32[{}]\n", hidden);
  text += "parameter %6 \"b2\": float32[4]\n";
  text += "#0 %10: float32[n, 4] = aten::linear(%0, %2, none) in \"m\"\n";
  text += divided ? "#1 %11: float32[n, 4] = shardpipe::enter(%10, \"tp\") in \"m\"\n"
                  : "#1 %11: float32[n, 4] = aten::alias(%10) in \"m\"\n";
  text += fmt::format("#2 %12: float32[n, {}] = aten::linear(%11, %3, %5) in \"m\"\n", hidden);
  text += fmt::format("#3 %13: float32[n, {}] = aten::tanh(%12) in \"m\"\n", hidden);
  text += "#4 %14: float32[n, 4] = aten::linear(%13, %4, none) in \"m\"\n";
  text += divided ? "#5 %15: float32[n, 4] = shardpipe::all_reduce(%14, \"tp\") in \"m\"\n"
                  : "#5 %15: float32[n, 4] = aten::alias(%14) in \"m\"\n";
  text += "#6 %16: float32[n, 4] = aten::add.Tensor(%15, %6, 1) in \"m\"\n";
  text += "#7 %17: float32[n, 4] = aten::add.Tensor(%16, %10, 1) in \"m\"\n";
  text += "#8 %18: float32[] = aten::cross_entropy_loss(%17, %1, none, 1, -100, 0.0) in \"m\"\n";
  text += "output \"h\" %17\noutput \"loss\" %18\n";
  graph::Graph graph = graph::parse(text, "test");
  graph::verify(graph, "test");
  return graph;
}

plan::Plan plan_of(const Toy& toy) {
  tensor::register_collectives();
  plan::Plan plan;
  plan.layout.pp = toy.pp;
  plan.layout.dp = toy.dp;
  plan.layout.tp = toy.tp;
  plan.layout.chunks = toy.chunks;
  int64_t units = 0;
  for (const int64_t unit : toy.units) {
    units += unit;
  }
  for (const int64_t unit : toy.units) {
    plan.parts.push_back(part_graph(kHidden / units * unit, toy.tp > 1));
    plan.scalars = plan::describe_scalars(plan.parts.back());
  }
  plan.graph = plan.parts.front();
  if (toy.tp > 1) {
    plan.shards["w1"] = {0, {kHidden}, toy.units};
    plan.shards["b1"] = {0, {kHidden}, toy.units};
    plan.shards["w2"] = {1, {kHidden}, toy.units};
  }
  // In the middle of what is divided, and behind it.
  plan.cuts = toy.pp == 1   ? partition::CutPoints{}
              : toy.pp == 2 ? partition::CutPoints{kPlace}
                            : partition::CutPoints{kPlace, kPlace + 3};
  plan.stages = partition::cut(plan.graph, plan.cuts);
  return plan;
}

// Whole weights, by name.
at::Tensor weight(const std::string& name) {
  const std::map<std::string, std::vector<int64_t>> shapes = {
      {"w0", {4, 4}}, {"w1", {kHidden, 4}}, {"w2", {4, kHidden}}, {"b1", {kHidden}}, {"b2", {4}}};
  const std::vector<int64_t>& shape = shapes.at(name);
  const int64_t count = c10::multiply_integers(shape);
  return at::arange(count, at::kFloat).mul(0.37 + 0.1 * static_cast<double>(name.back())).sin().view(shape);
}

NamedTensors inputs(int64_t rows) {
  const at::Tensor x = at::arange(rows * kWidth, at::kFloat).mul(1.7).cos().view({rows, kWidth});
  at::Tensor y = at::arange(rows, at::kLong).remainder(4);
  if (rows > 2) {
    y[0] = -100;  // rows with different counts of loss elements
  }
  return {{"x", x}, {"y", y}};
}

BatchResult run(const Toy& toy, const NamedTensors& given, const RunOptions& options) {
  BatchResult answer;
  test::run_stages(
      plan_of(toy),
      [&](Engine& engine) {
        BatchResult result = run_batch(engine, engine.is_first() ? given : NamedTensors(), options);
        const bool gets =
            options.outputs_on_last ? engine.at() == mesh::Coordinates{toy.pp - 1, 0, 0} : engine.is_first();
        if (gets) {
          answer = std::move(result);
        } else {
          EXPECT_TRUE(result.outputs.empty());
        }
      },
      weight);
  return answer;
}

void expect_near(const NamedTensors& actual, const NamedTensors& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].first, expected[i].first);
    // Chains of short sums of numbers below 10, a few dozen roundings each.
    const at::Tensor bound = at::full_like(expected[i].second, 10 * test::gamma(100, at::kFloat), at::kDouble);
    EXPECT_TRUE(test::close(actual[i].second, expected[i].second, bound)) << actual[i].first;
  }
}

const std::vector<Toy> kMeshes = {
    {.pp = 1, .dp = 1, .tp = 2, .units = {1, 1}},
    {.pp = 1, .dp = 1, .tp = 2, .units = {2, 1}},
    {.pp = 1, .dp = 1, .tp = 3, .units = {3, 2, 1}},
    {.pp = 1, .dp = 1, .tp = 2, .units = {1, 0}},
    {.pp = 2, .dp = 1, .tp = 2, .units = {2, 1}, .chunks = 3},
    {.pp = 3, .dp = 1, .tp = 2, .units = {1, 2}, .chunks = 2},
    {.pp = 1, .dp = 2, .tp = 1},
    {.pp = 1, .dp = 4, .tp = 1, .chunks = 2},
    {.pp = 2, .dp = 2, .tp = 1, .chunks = 2},
    {.pp = 1, .dp = 2, .tp = 2, .units = {1, 1}},
    {.pp = 2, .dp = 3, .tp = 2, .units = {2, 1}, .chunks = 2},
};

TEST(Mesh, OutputsAndGradientsAreThoseOfTheWhole) {
  RunOptions options;
  options.loss = "loss";
  options.merge["h"] = {MergeRule::Kind::cat, 0};
  for (const int64_t rows : {7, 3, 1}) {
    const NamedTensors given = inputs(rows);
    const BatchResult whole = run({}, given, options);
    ASSERT_EQ(whole.gradients.size(), 5U);
    for (const Toy& toy : kMeshes) {
      SCOPED_TRACE(fmt::format("{} rows, pp {} dp {} tp {}", rows, toy.pp, toy.dp, toy.tp));
      const BatchResult result = run(toy, given, options);
      expect_near(result.outputs, whole.outputs);
      expect_near(result.gradients, whole.gradients);
    }
  }
}

TEST(Mesh, JoinsOutputsByRule) {
  for (const MergeRule::Kind kind : {MergeRule::Kind::sum, MergeRule::Kind::mean, MergeRule::Kind::last}) {
    RunOptions options;
    options.merge["h"] = {kind, 0};
    options.chunks = 2;
    const BatchResult whole = run({.chunks = 4}, inputs(8), [&] {
      RunOptions four = options;
      four.chunks = 4;
      return four;
    }());
    const BatchResult result = run({.pp = 2, .dp = 2, .tp = 2, .units = {2, 1}}, inputs(8), options);
    EXPECT_EQ(result.microbatches, 2);
    expect_near(result.outputs, whole.outputs);
  }
}

TEST(Mesh, LeavesOutputsOnTheLastStage) {
  RunOptions options;
  const BatchResult whole = run({}, inputs(5), options);
  options.outputs_on_last = true;
  const BatchResult result = run({.pp = 2, .dp = 2, .tp = 2, .units = {2, 1}}, inputs(5), options);
  expect_near(result.outputs, whole.outputs);
}

TEST(Mesh, CutsRowsOverReplicasAsTensorSplitDoes) {
  plan::Plan plan = plan_of({.dp = 3});
  plan.layout.chunks = 2;
  const auto request = [&](int64_t rows) { return request_batch(plan, inputs(rows), {}); };
  EXPECT_THAT(request(8).by_replica, ElementsAre(2, 2, 2));
  EXPECT_THAT(request(8).rows, ElementsAre(2, 1, 2, 1, 1, 1));
  EXPECT_THAT(request(8).rows_of(1), ElementsAre(2, 1));
  EXPECT_THAT(request(4).by_replica, ElementsAre(2, 1, 1));
  EXPECT_THAT(request(2).by_replica, ElementsAre(1, 1, 0));
  EXPECT_EQ(request(2).active_replicas(), 2);
  EXPECT_EQ(batch_request_from_json(to_json(request(2))).by_replica, request(2).by_replica);
}

TEST(Mesh, ARankHoldsItsPieces) {
  const plan::Plan plan = plan_of({.pp = 2, .tp = 2, .units = {2, 1}});
  test::run_stages(
      plan,
      [&](Engine& engine) {
        const int64_t hidden = engine.at().tp == 0 ? 4 : 2;
        const int64_t first = 16 + hidden * 4 + hidden;
        const int64_t second = hidden * 4 + 4;
        EXPECT_EQ(engine.parameter_bytes(), 4 * (engine.at().pp == 0 ? first : second));
      },
      weight);
}

// A statistic that is divided: the running sum of a column-parallel layer's results.
TEST(Mesh, StatesAreGatheredAndScattered) {
  tensor::register_collectives();
  plan::Plan plan;
  plan.layout.dp = 2;
  plan.layout.tp = 2;
  const std::vector<int64_t> units = {2, 1};
  for (const int64_t hidden : {4, 2}) {
    plan.parts.push_back(graph::parse(
        fmt::format(
            "shardpipe-graph 1\ndimension n\ninput %0 \"x\": float32[n, 4]\nparameter %1 \"w1\": float32[{0}, 4]\n"
            "state %2 \"mean\": float32[{0}]\nstate %3 \"count\": float32[4]\n"
            "#0 %4: float32[n, {0}] = aten::linear(%0, %1, none) in \"m\"\n"
            "#1 %5: float32[{0}] = aten::sum.dim_IntList(%4, ints[0], false, none) in \"m\"\n"
            "#2 %6: float32[{0}] = aten::add_.Tensor(%2, %5, 1) in \"m\"\n"
            "#3 %7: float32[4] = aten::sum.dim_IntList(%0, ints[0], false, none) in \"m\"\n"
            "#4 %8: float32[4] = aten::add_.Tensor(%3, %7, 1) in \"m\"\n"
            "#5 %9: float32[n, 6] = shardpipe::all_gather(%4, 1, ints[6], ints[2, 1], \"tp\") in \"m\"\n"
            "output \"h\" %9\n",
            hidden),
        "test"));
  }
  plan.graph = plan.parts.front();
  plan.shards["w1"] = {0, {kHidden}, units};
  plan.shards["mean"] = {0, {kHidden}, units};
  plan.stages = partition::cut(plan.graph, plan.cuts);
  const at::Tensor mean = at::arange(6, at::kFloat);
  const at::Tensor count = at::ones({4});
  const TensorSource source = [&](const std::string& name) {
    return name == "mean" ? mean : name == "count" ? count : weight(name);
  };
  const at::Tensor x = inputs(5)[0].second;
  test::run_stages(
      plan,
      [&](Engine& engine) {
        run_batch(engine, engine.is_first() ? NamedTensors{{"x", x}} : NamedTensors(), {});
        const NamedTensors state = gather_state(engine);
        const NamedTensors given = {{"mean", mean * 2}, {"count", count * 3}};
        scatter_state(engine, engine.is_first() ? given : NamedTensors(), "");
        const NamedTensors again = gather_state(engine);
        if (!engine.is_first()) {
          EXPECT_TRUE(state.empty());
          return;
        }
        const at::Tensor sums = at::linear(x, weight("w1")).sum(0);
        expect_near(state, {{"mean", mean + sums}, {"count", count + x.sum(0)}});
        EXPECT_TRUE(again[0].second.equal(mean * 2));
        EXPECT_TRUE(again[1].second.equal(count * 3));
        const Error error = error_of([&] { check_state(engine, {{"mean", at::ones({4})}, {"count", count}}, ""); });
        EXPECT_THAT(error.message(), ::testing::HasSubstr("\"mean\" is float32[4], must be float32[6]"));
      },
      source);
}

}  // namespace
}  // namespace shardpipe::runtime
