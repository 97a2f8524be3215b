#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/executor.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "partition/layers.h"
#include "partition/stages.h"
#include "support/errors.h"

namespace shardpipe::partition {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Four layers with a residual each; a mask made from the input that every layer reads; a skip from the first layer to
// the last; an embedding that the head reads again.
graph::Graph toy() {
  std::string text = R"(shardpipe-graph 1
dimension n
input %0 "x": float32[n, 4]
parameter %1 "embed.weight" tied "head.weight": float32[4, 4]
parameter %2 "layers.0.weight": float32[4, 4]
parameter %3 "layers.1.weight": float32[4, 4]
parameter %4 "layers.2.weight": float32[4, 4]
parameter %5 "layers.3.weight": float32[4, 4]
module "embed" "Embedding"
module "layers.0" "Layer"
module "layers.1" "Layer"
module "layers.2" "Layer"
module "layers.3" "Layer"
module "head" "Head"
#0 %6: float32[n, 4] = aten::sigmoid(%0) in "mask"
#1 %7: float32[n, 4] = aten::linear(%0, %1, none) in "embed"
#2 %8: float32[n, 4] = aten::linear(%7, %2, none) in "layers.0"
#3 %9: float32[n, 4] = aten::mul.Tensor(%8, %6) in "layers.0"
#4 %10: float32[n, 4] = aten::linear(%9, %3, none) in "layers.1"
#5 %11: float32[n, 4] = aten::mul.Tensor(%10, %6) in "layers.1"
#6 %12: float32[n, 4] = aten::linear(%11, %4, none) in "layers.2"
#7 %13: float32[n, 4] = aten::mul.Tensor(%12, %6) in "layers.2"
#8 %14: float32[n, 4] = aten::linear(%13, %5, none) in "layers.3"
#9 %15: float32[n, 4] = aten::add.Tensor(%14, %9, 1) in "layers.3"
#10 %16: float32[n, 4] = aten::linear(%15, %1, none) in "head"
output "y" %16
)";
  return graph::parse(text, "toy");
}

// Golden vectors: neuronx-distributed's create_partitions (floor, the last stages get one more).
TEST(EvenSizes, GivesLeftoversToLaterStages) {
  EXPECT_THAT(even_sizes(19, 4), ElementsAre(4, 5, 5, 5));
  EXPECT_THAT(even_sizes(7, 3), ElementsAre(2, 2, 3));
  EXPECT_THAT(even_sizes(30, 4), ElementsAre(7, 7, 8, 8));
  EXPECT_THAT(even_sizes(4, 4), ElementsAre(1, 1, 1, 1));
}

TEST(EvenSizes, RefusesMoreStagesThanLayers) {
  const Error error = error_of([] { even_sizes(3, 4); });
  EXPECT_EQ(error.code(), ErrorCode::usage);
  EXPECT_THAT(error.what(), HasSubstr("4 stages (--pp) for a model of 3 layers"));
  EXPECT_THAT(error.hint(), HasSubstr("--pp 3"));
}

TEST(Layers, AreTheRepeatedModule) {
  const Layers layers = find_layers(toy());
  EXPECT_EQ(layers.class_name, "Layer");
  EXPECT_THAT(layers.paths, ElementsAre("layers.0", "layers.1", "layers.2", "layers.3"));
}

TEST(Layers, OuterGroupWinsAndNumbersSortAsNumbers) {
  graph::Graph graph;
  for (int i = 0; i < 12; ++i) {
    graph.modules["model.layers." + std::to_string(i)] = "Layer";
    graph.modules["model.layers.0.experts." + std::to_string(i)] = "Expert";
  }
  const Layers layers = find_layers(graph);
  EXPECT_EQ(layers.class_name, "Layer");
  EXPECT_EQ(layers.paths[2], "model.layers.2");
  EXPECT_EQ(layers.paths[11], "model.layers.11");
}

TEST(CutEven, PutsTheEndsWithTheOuterStages) {
  EXPECT_THAT(cut_even(toy(), 1), ElementsAre());
  EXPECT_THAT(cut_even(toy(), 2), ElementsAre(6));
  EXPECT_THAT(cut_even(toy(), 3), ElementsAre(4, 6));
}

TEST(CutAt, AfterAndBefore) {
  EXPECT_EQ(cut_at(toy(), {"layers.1"}, 2), cut_at(toy(), {"<layers.2"}, 2));
  EXPECT_THAT(cut_at(toy(), {"embed", "<head"}, 3), ElementsAre(2, 10));
}

TEST(CutAt, Refuses) {
  const Error unknown = error_of([] { cut_at(toy(), {"layer.1"}, 2); });
  EXPECT_EQ(unknown.code(), ErrorCode::usage);
  EXPECT_THAT(unknown.hint(), HasSubstr("layers.1"));
  EXPECT_THAT(
      error_of([] { cut_at(toy(), {"layers.1"}, 3); }).message(), HasSubstr("1 names for 3 stages: 2 are needed"));
  EXPECT_THAT(
      error_of([] {
        cut_at(toy(), {"layers.2", "layers.1"}, 3);
      }).message(),
      HasSubstr("leaves stage 1 without work"));
  EXPECT_THAT(error_of([] { cut_at(toy(), {"head"}, 2); }).message(), HasSubstr("leaves stage 1 without work"));
  EXPECT_THAT(
      error_of([] {
        cut_at(toy(), {"layers.1", "layers.1"}, 3);
      }).message(),
      HasSubstr("leaves stage 1 without work"));
}

TEST(Cut, SendsSkipsDirectlyAndRecomputesMasks) {
  const Stages stages = cut(toy(), cut_even(toy(), 4));
  ASSERT_EQ(stages.graphs.size(), 4U);
  // The mask %6 is made again in every stage that reads it; %9 goes to stages 1 and 3.
  EXPECT_THAT(stages.edges, ElementsAre(Edge{9, 0, 1}, Edge{9, 0, 3}, Edge{11, 1, 2}, Edge{13, 2, 3}));
  for (int stage = 0; stage < 4; ++stage) {
    const graph::Graph& part = stages.graphs[static_cast<size_t>(stage)];
    EXPECT_NO_THROW(graph::verify(part, "cut"));
    const bool has_mask =
        std::any_of(part.nodes.begin(), part.nodes.end(), [](const auto& node) { return node.id == 0; });
    EXPECT_EQ(has_mask, stage < 3);
  }
  // The tied weight is in the first and the last stage, and nowhere else.
  EXPECT_THAT(stages.graphs[0].used_tensors(), ElementsAre(1, 2));
  EXPECT_THAT(stages.graphs[1].used_tensors(), ElementsAre(3));
  EXPECT_THAT(stages.graphs[3].used_tensors(), ElementsAre(1, 5));
}

TEST(Cut, AnyCutGivesTheUncutResultBitwise) {
  const graph::Graph whole = toy();
  at::manual_seed(3);
  std::map<graph::ValueId, at::Tensor> tensors;
  for (const graph::ValueId id : whole.used_tensors()) {
    tensors[id] = at::randn({4, 4});
  }
  const at::Tensor x = at::randn({5, 4});
  const auto run = [&](const graph::Graph& part, const std::map<std::string, at::Tensor>& inputs) {
    graph::Executor executor(part);
    for (const graph::ValueId id : part.used_tensors()) {
      executor.set(id, tensors.at(id));
    }
    for (const graph::ValueId id : part.inputs) {
      executor.set(id, inputs.at(part.values[static_cast<size_t>(id)].name));
    }
    executor.run();
    std::map<std::string, at::Tensor> outputs;
    for (const graph::Output& output : part.outputs) {
      outputs[output.name] = executor.get(output.value).toTensor();
    }
    return outputs;
  };
  const at::Tensor expected = run(whole, {{"x", x}}).at("y");
  for (size_t a = 1; a < whole.nodes.size(); ++a) {
    for (size_t b = a + 1; b < whole.nodes.size(); ++b) {
      const Stages stages = cut(whole, {a, b});
      std::map<std::string, at::Tensor> values = {{"x", x}};
      for (const graph::Graph& part : stages.graphs) {
        values.merge(run(part, values));
      }
      EXPECT_TRUE(values.at("y").equal(expected)) << "cuts at " << a << ", " << b;
    }
  }
}

TEST(Cut, RefusesAWriteAcrossTheCut) {
  const graph::Graph graph = graph::parse(
      "shardpipe-graph 1\ndimension n\ninput %0 \"x\": float32[n]\nstate %1 \"count\" shared: float32[n]\n"
      "#0 %2: float32[n] = aten::add_.Tensor(%1, %0, 1) in \"a\"\n"
      "#1 %3: float32[n] = aten::mul.Tensor(%1, %0) in \"b\"\noutput \"y\" %3\n",
      "test");
  const Error error = error_of([&] { cut(graph, {1}); });
  EXPECT_EQ(error.code(), ErrorCode::usage);
  EXPECT_THAT(error.message(), HasSubstr("separates \"a\" from another stage's use of count"));
}

TEST(Nearest, RanksByEditDistance) {
  EXPECT_THAT(nearest("layer.1", {"head", "layers.1", "layers.10"}, 2), ElementsAre("layers.1", "layers.10"));
}

}  // namespace
}  // namespace shardpipe::partition
