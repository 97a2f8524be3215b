// Split policies on tables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "graph/text.h"
#include "partition/balance.h"
#include "partition/layers.h"
#include "partition/stages.h"
#include "support/errors.h"

namespace shardpipe::partition {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

graph::Graph parse(const std::string& text) {
  return graph::parse("shardpipe-graph 1\n" + text, "test");
}

// Each stage alone.
std::vector<std::vector<int>> groups_of(int stages) {
  std::vector<std::vector<int>> groups;
  for (int stage = 0; stage < stages; ++stage) {
    groups.push_back({stage});
  }
  return groups;
}

// `sizes[i]` floats in layer i, one linear each.
graph::Graph layers_of(const std::vector<int64_t>& sizes, const std::string& name = "layers.") {
  std::string head = "dimension n\ninput %0 \"x\": float32[n, 1]\n";
  std::string nodes;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const std::string path = name + std::to_string(i);
    head +=
        fmt::format("parameter %{} \"{}.weight\": float32[{}]\nmodule \"{}\" \"Layer\"\n", i + 1, path, sizes[i], path);
    nodes += fmt::format(
        "#{} %{}: float32[n, 1] = aten::mul.Tensor(%{}, %{}) in \"{}\"\n", i, 100 + i, i == 0 ? 0 : 99 + i, i + 1,
        path);
  }
  return parse(head + nodes + fmt::format("output \"y\" %{}\n", 99 + sizes.size()));
}

// The model of PiPPy's local_test_autosplit: mm, +, relu, mm, + buffer slice, lin, relu, + skip, mm, lin.
graph::Graph pippy() {
  return parse(
      "dimension n\ninput %0 \"x\": float32[n, 512]\ninput %1 \"y\": float32[n, 512]\n"
      "parameter %2 \"mm_param\": float32[512, 512]\nparameter %3 \"mm_param2\": float32[512, 512]\n"
      "parameter %4 \"lin.weight\": float32[512, 512]\nparameter %5 \"lin.bias\": float32[512]\n"
      "buffer %6 \"buffer\": float32[603, 512]\n"
      "#0 %10: float32[n, 512] = aten::mm(%0, %2) in \"\"\n"
      "#1 %11: float32[n, 512] = aten::add.Tensor(%10, %1, 1) in \"\"\n"
      "#2 %12: float32[n, 512] = aten::relu(%11) in \"\"\n"
      "#3 %13: float32[n, 512] = aten::mm(%12, %2) in \"\"\n"
      "#4 %14: int = aten::sym_size.int(%0, 0) in \"\"\n"
      "#5 %15: float32[n, 512] = aten::slice.Tensor(%6, 0, none, %14, 1) in \"\"\n"
      "#6 %16: float32[n, 512] = aten::add.Tensor(%13, %15, 1) in \"\"\n"
      "#7 %17: float32[n, 512] = aten::linear(%16, %4, %5) in \"lin\"\n"
      "#8 %18: float32[n, 512] = aten::relu(%17) in \"\"\n"
      "#9 %19: float32[n, 512] = aten::add.Tensor(%18, %10, 1) in \"\"\n"
      "#10 %20: float32[n, 512] = aten::mm(%19, %3) in \"\"\n"
      "#11 %21: float32[n, 512] = aten::linear(%20, %4, %5) in \"lin\"\noutput \"out\" %21\n");
}

// Golden: PiPPy's walk over this model; its sizes are elements, ours bytes.
TEST(Threshold, IsPippysWalk) {
  EXPECT_THAT(cut_threshold(pippy(), 300000 * 4), ElementsAre(5, 7, 10, 11));
  EXPECT_THAT(cut_equal_size(pippy(), 2), ElementsAre(5));
  EXPECT_THAT(cut_equal_size(pippy(), 3), ElementsAre(5, 7));
  // Every operator exceeds a fifth: the cuts come after mm, the second mm, the buffer's slice and lin.
  EXPECT_THAT(cut_equal_size(pippy(), 5), ElementsAre(1, 4, 6, 8));
  EXPECT_THAT(cut_threshold(pippy(), 1 << 30), ElementsAre());
}

TEST(EqualSize, RefusesWhatGivesFewerStages) {
  const Error error = error_of([] { cut_equal_size(layers_of({100, 1}), 3); });
  EXPECT_EQ(error.code(), ErrorCode::usage);
  EXPECT_THAT(error.message(), HasSubstr("--split equal_size gives 2 stages, --pp is 3"));
}

// Golden vectors of neuronx-distributed's auto_partition: cuts after layers 3, 8, 13 of 19, and 9, 19, 29 of 40.
TEST(Even, CutsLayers) {
  const auto even = [](int64_t layers, int stages) {
    return cut_even(layers_of(std::vector<int64_t>(static_cast<size_t>(layers), 1)), stages);
  };
  EXPECT_THAT(even(19, 4), ElementsAre(4, 9, 14));
  EXPECT_THAT(even(40, 4), ElementsAre(10, 20, 30));
  EXPECT_THAT(even(7, 3), ElementsAre(2, 4));
}

TEST(Even, TakesTopLevelModulesThenOperatorsWithParameters) {
  EXPECT_THAT(cut_even(layers_of({1, 1, 1, 1}, "stem"), 2), ElementsAre(2));  // stem0 to stem3: no numbers
  graph::Graph flat = layers_of({1, 1, 1}, "stem");
  for (graph::Node& node : flat.nodes) {
    node.module.clear();
  }
  flat.modules.clear();
  EXPECT_THAT(cut_even(flat, 3), ElementsAre(1, 2));
  EXPECT_THAT(error_of([&] { cut_even(flat, 4); }).message(), HasSubstr("4 stages (--pp) for a model of 3 layers"));
}

TEST(Even, CountsBlocksOfAllParents) {
  graph::Graph graph = layers_of({1, 1, 1, 1});
  const std::vector<std::string> paths = {"layer1.0", "layer1.1", "layer2.0", "layer2.1"};
  graph.modules.clear();
  for (size_t n = 0; n < paths.size(); ++n) {
    graph.nodes[n].module = paths[n] + ".conv";
    graph.modules[paths[n]] = "BasicBlock";
  }
  EXPECT_EQ(find_layers(graph).paths, paths);
  EXPECT_THAT(cut_even(graph, 4), ElementsAre(1, 2, 3));
}

TEST(Even, RefusesLayersThatRunMoreThanOnce) {
  graph::Graph graph = layers_of({1, 1, 1, 1});
  graph.nodes[2].module = "layers.0";
  graph.nodes[3].module = "layers.1";
  graph.modules = {{"layers.0", "Layer"}, {"layers.1", "Layer"}};
  std::swap(graph.nodes[2].module, graph.nodes[3].module);  // 0 1 1 0
  const Error error = error_of([&] { cut_even(graph, 2); });
  EXPECT_EQ(error.code(), ErrorCode::usage);
  EXPECT_THAT(error.message(), HasSubstr("leaves stage 0 without work"));
}

double slowest(const CutPoints& points, const Costs& costs) {
  double worst = 0;
  for (size_t stage = 0; stage <= points.size(); ++stage) {
    const size_t begin = stage == 0 ? 0 : points[stage - 1];
    const size_t end = stage == points.size() ? costs.compute.size() : points[stage];
    double sum = costs.transfer[begin] + costs.transfer[end];
    for (size_t n = begin; n < end; ++n) {
      sum += costs.compute[n];
    }
    worst = std::max(worst, sum);
  }
  return worst;
}

// All contiguous cuts, tried one after the other.
double best_of_all(const Costs& costs, int stages, size_t begin, CutPoints& points, const std::function<bool()>& fits) {
  if (stages == 1) {
    return fits() ? slowest(points, costs) : std::numeric_limits<double>::infinity();
  }
  double best = std::numeric_limits<double>::infinity();
  for (size_t point = begin + 1; point < costs.compute.size(); ++point) {
    points.push_back(point);
    best = std::min(best, best_of_all(costs, stages - 1, point, points, fits));
    points.pop_back();
  }
  return best;
}

TEST(Balanced, IsOptimalForItsCosts) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const size_t count = 4 + random() % 7;
    std::vector<int64_t> sizes;
    Costs costs;
    for (size_t n = 0; n < count; ++n) {
      sizes.push_back(1 + static_cast<int64_t>(random() % 20));
      costs.compute.push_back(static_cast<double>(random() % 50));
      costs.transfer.push_back(n == 0 ? 0 : static_cast<double>(random() % 8));
    }
    costs.transfer.push_back(0);
    const graph::Graph graph = layers_of(sizes);
    const int stages = 1 + static_cast<int>(random() % 4);
    const int64_t memory = random() % 2 == 0 ? 0 : 40 + 4 * static_cast<int64_t>(random() % 40);
    CutPoints tried;
    const auto fits = [&] {
      for (int stage = 0; stage < stages && memory > 0; ++stage) {
        if (held_bytes(graph, tried, {stage}) > memory) {
          return false;
        }
      }
      return true;
    };
    const double best = best_of_all(costs, stages, 0, tried, fits);
    if (best == std::numeric_limits<double>::infinity()) {
      EXPECT_EQ(error_of([&] { cut_balanced(graph, stages, costs, memory); }).code(), ErrorCode::usage);
      continue;
    }
    const CutPoints points = cut_balanced(graph, stages, costs, memory);
    EXPECT_EQ(points.size() + 1, static_cast<size_t>(stages));
    EXPECT_EQ(slowest(points, costs), best);
    EXPECT_NO_THROW(check_memory(graph, points, groups_of(stages), memory));
  }
}

// An embedding and a head that weigh as much as three layers each.
TEST(Balanced, CountsEmbeddingAndHead) {
  const graph::Graph graph = layers_of({3000000, 1000000, 1000000, 1000000, 1000000, 1000000, 1000000, 3000000});
  EXPECT_THAT(cut_balanced(graph, 4, cost_model(graph)), ElementsAre(1, 4, 7));
  EXPECT_THAT(cut_even(graph, 4), ElementsAre(2, 4, 6));
}

TEST(Balanced, RefusesTooManyStages) {
  const graph::Graph graph = layers_of({1, 1});
  EXPECT_THAT(
      error_of([&] { cut_balanced(graph, 3, cost_model(graph)); }).message(),
      HasSubstr("3 stages (--pp) for a program of 2"));
}

TEST(Balanced, DoesNotCutThroughAWrittenState) {
  const graph::Graph graph = parse(
      "dimension n\ninput %0 \"x\": float32[n]\nstate %1 \"count\" shared: float32[n]\n"
      "#0 %2: float32[n] = aten::add_.Tensor(%1, %0, 1) in \"a\"\n"
      "#1 %3: float32[n] = aten::mul.Tensor(%1, %0) in \"b\"\n#2 %4: float32[n] = aten::tanh(%3) in \"c\"\noutput "
      "\"y\" %4\n");
  EXPECT_THAT(cut_balanced(graph, 2, cost_model(graph)), ElementsAre(2));
  EXPECT_THAT(
      error_of([&] { cut_balanced(graph, 3, cost_model(graph)); }).message(), HasSubstr("cannot be cut into 3 stages"));
}

TEST(Memory, IsThatOfStagesHeldTogether) {
  const graph::Graph graph = layers_of({10, 20, 30, 40});
  EXPECT_EQ(held_bytes(graph, {1, 2, 3}, {0, 2}), 160);
  EXPECT_EQ(held_bytes(graph, {1, 2, 3}, {1, 3}), 240);
  EXPECT_NO_THROW(check_memory(graph, {1, 2, 3}, {{0, 2}, {1, 3}}, 240));
  EXPECT_THAT(
      error_of([&] {
        check_memory(graph, {1, 2, 3}, {{0, 2}, {1, 3}}, 239);
      }).message(),
      HasSubstr("stages 1, 3 hold together 240 bytes of weights, --memory is 239"));
}

TEST(Memory, SaysWhatWouldFit) {
  const graph::Graph graph = layers_of({10, 10, 10, 100});  // 40, 40, 40 and 400 bytes
  EXPECT_NO_THROW(check_memory(graph, {1}, {{0}, {1}}, 480));
  EXPECT_NO_THROW(check_memory(graph, {1}, {{0}, {1}}, 0));
  const Error other = error_of([&] { check_memory(graph, {1}, {{0}, {1}}, 450); });
  EXPECT_EQ(other.code(), ErrorCode::usage);
  EXPECT_THAT(other.message(), HasSubstr("stage 1 holds 480 bytes of weights, --memory is 450"));
  EXPECT_THAT(other.hint(), HasSubstr("--pp 2 can be cut into stages of 400 bytes at most: --split balanced fits"));
  const graph::Graph even = layers_of({10, 10, 10, 10});
  const Error more = error_of([&] { cut_balanced(even, 2, cost_model(even), 50); });
  EXPECT_THAT(more.message(), HasSubstr("no cut into 2 stages keeps to --memory 50"));
  EXPECT_THAT(
      more.hint(), HasSubstr("--pp 2 can be cut into stages of 80 bytes at most; --pp 4 --split balanced fits"));
  const Error never = error_of([&] { cut_balanced(graph, 2, cost_model(graph), 300); });
  EXPECT_THAT(never.hint(), HasSubstr("a single operator needs 400 bytes: no number of stages fits"));
}

// A value that is written after it was sent, or in a copy that another stage does not have.
TEST(Cut, WritesInPlace) {
  const std::string head = "dimension n\ninput %0 \"x\": float32[n]\nparameter %1 \"w\": float32[1]\n";
  const std::string fresh = head + "#0 %2: float32[n] = aten::mul.Tensor(%0, %1) in \"a\"\n";
  // relu_ in the stage that made the value, or in the next, which then passes its own copy on.
  const graph::Graph chain = parse(
      fresh +
      "#1 %3: float32[n] = aten::relu_(%2) in \"b\"\n#2 %4: float32[n] = aten::tanh(%3) in \"c\"\noutput \"y\" %4\n");
  EXPECT_EQ(cut(chain, {2}).edges, (std::vector<Edge>{{3, 0, 1}}));
  EXPECT_EQ(cut(chain, {1, 2}).edges, (std::vector<Edge>{{2, 0, 1}, {3, 1, 2}}));
  // Read by its first name after the write: right where both are together, stale where the write is elsewhere.
  const graph::Graph stale = parse(
      fresh +
      "#1 %3: float32[n] = aten::relu_(%2) in \"b\"\n#2 %4: float32[n] = aten::tanh(%2) in \"c\"\noutput \"y\" %4\n");
  EXPECT_NO_THROW(cut(stale, {2}));
  EXPECT_NO_THROW(cut(stale, {1}));
  EXPECT_THAT(
      error_of([&] {
        cut(stale, {1, 2});
      }).message(),
      HasSubstr("a cut separates \"b\" from another stage's use of %2"));
  // Two views of one value arrive as two copies: the write would reach one of them.
  const graph::Graph views = parse(
      fresh +
      "#1 %3: float32[n] = aten::view(%2, ints[-1]) in \"a\"\n#2 %4: float32[n] = aten::relu_(%3) in \"b\"\n"
      "#3 %5: float32[n] = aten::add.Tensor(%4, %2, 1) in \"c\"\noutput \"y\" %5\n");
  EXPECT_THAT(error_of([&] { cut(views, {2}); }).message(), HasSubstr("which it writes"));
  EXPECT_NO_THROW(cut(views, {1}));
  // A function of the inputs that is written is no longer the same everywhere.
  const graph::Graph cheap = parse(
      head +
      "#0 %2: float32[n] = aten::neg(%0) in \"a\"\n#1 %3: float32[n] = aten::mul_.Tensor(%2, %1) in \"b\"\n"
      "#2 %4: float32[n] = aten::abs(%3) in \"b\"\n#3 %5: float32[n] = aten::tanh(%4) in \"c\"\noutput \"y\" %5\n");
  EXPECT_EQ(cut(cheap, {3}).edges, (std::vector<Edge>{{4, 0, 1}}));
}

}  // namespace
}  // namespace shardpipe::partition
