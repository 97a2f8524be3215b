#include "kernels/fuse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/executor.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "kernels/register.h"

namespace shardpipe::kernels {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> names(const graph::Graph& graph) {
  std::vector<std::string> names;
  for (const graph::Node& node : graph.nodes) {
    names.push_back(node.op_name());
  }
  return names;
}

// Runs a graph whose tensors are filled from a fixed seed, in id order.
std::vector<at::Tensor> run(const graph::Graph& graph, int64_t rows) {
  const c10::InferenceMode inference;
  at::manual_seed(11);
  graph::Executor executor(graph);
  std::vector<graph::ValueId> ids = graph.used_tensors();
  ids.insert(ids.end(), graph.inputs.begin(), graph.inputs.end());
  std::sort(ids.begin(), ids.end());
  for (const graph::ValueId id : ids) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    executor.set(id, at::randn(graph::evaluate(*value.shape, {{"n", rows}}), at::TensorOptions(*value.dtype)));
  }
  executor.run();
  std::vector<at::Tensor> outputs;
  for (const graph::Output& output : graph.outputs) {
    outputs.push_back(executor.get(output.value).toTensor().to(at::kFloat));
  }
  return outputs;
}

void expect_same(const graph::Graph& before, const graph::Graph& after, double tolerance) {
  EXPECT_NO_THROW(graph::verify(after, "fuse"));
  EXPECT_EQ(graph::print(graph::parse(graph::print(after), "fused")), graph::print(after));
  for (const int64_t rows : {1, 3, 40}) {
    const auto expected = run(before, rows);
    const auto got = run(after, rows);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double error = (expected[i] - got[i]).abs().max().item<double>();
      EXPECT_LE(error, tolerance * std::max(1.0, expected[i].abs().max().item<double>()))
          << "output " << i << ", " << rows << " rows";
    }
  }
}

graph::Graph parse(const std::string& body) {
  register_operators();
  return graph::parse("shardpipe-graph 1\ndimension n\n" + body, "test");
}

constexpr const char* kLayer = R"(input %0 "x": float32[n, 8]
parameter %1 "q.weight": float32[8, 8]
parameter %2 "k.weight": float32[4, 8]
parameter %3 "k.bias": float32[4]
parameter %4 "gate.weight": float32[16, 8]
parameter %5 "up.weight": float32[16, 8]
parameter %6 "down.weight": float32[8, 16]
parameter %7 "norm.weight": float32[8]
#0 %10: float32[n, 8] = aten::linear(%0, %1, none) in "l.attn.q"
#1 %11: float32[n, 4] = aten::linear(%0, %2, %3) in "l.attn.k"
#2 %12: float32[n, 8] = aten::add.Tensor(%0, %10, 1) in "l"
#3 %13: float32[n, 8] = aten::rms_norm(%12, [8], %7, 1e-05) in "l.norm"
#4 %14: float32[n, 16] = aten::linear(%13, %4, none) in "l.mlp.gate"
#5 %15: float32[n, 16] = aten::linear(%13, %5, none) in "l.mlp.up"
#6 %16: float32[n, 16] = aten::silu(%14) in "l.mlp"
#7 %17: float32[n, 16] = aten::mul.Tensor(%16, %15) in "l.mlp"
#8 %18: float32[n, 8] = aten::linear(%17, %6, none) in "l.mlp.down"
#9 %19: float32[n, 8] = aten::add.Tensor(%12, %18, 1) in "l"
output "y" %19
output "k" %11
)";

TEST(Fuse, JoinsALayer) {
  const graph::Graph before = parse(kLayer);
  const graph::Graph after = fuse(before, KernelChoice{}, at::kFloat);
  EXPECT_THAT(
      names(after), ElementsAre(
                        "shardpipe::linear_group", "shardpipe::add_rms_norm", "shardpipe::linear_gated",
                        "shardpipe::linear", "aten::add.Tensor"));
  expect_same(before, after, 1e-5);
}

TEST(Fuse, KeepsWhatOthersRead) {
  std::string body = kLayer;
  body.replace(body.find("output \"k\" %11"), 14, "output \"k\" %16");  // the activation leaves the graph
  const graph::Graph before = parse(body);
  const graph::Graph after = fuse(before, KernelChoice{}, at::kFloat);
  EXPECT_THAT(names(after), ::testing::Not(::testing::Contains("shardpipe::linear_gated")));
  expect_same(before, after, 1e-5);
}

TEST(Fuse, DoesNotJoinAcrossModules) {
  std::string body = kLayer;
  body.replace(body.find("in \"l.norm\""), 11, "in \"m.norm\"");  // the next layer's norm: a cut may stand between
  body.replace(body.find("in \"l.attn.k\""), 13, "in \"m.attn.k\"");
  const graph::Graph after = fuse(parse(body), KernelChoice{}, at::kFloat);
  EXPECT_THAT(names(after), ::testing::Not(::testing::Contains("shardpipe::add_rms_norm")));
  EXPECT_THAT(names(after), ::testing::Not(::testing::Contains("shardpipe::linear_group")));
}

TEST(Fuse, SeesTheNormOf16BitModels) {
  const graph::Graph before = parse(R"(input %0 "x": bfloat16[n, 8]
parameter %1 "norm.weight": bfloat16[8]
#0 %2: float32[n, 8] = aten::to.dtype(%0, 6, false, false, none) in "m.norm"
#1 %3: float32[n, 8] = aten::rms_norm(%2, [8], none, 1e-05) in "m.norm"
#2 %4: bfloat16[n, 8] = aten::to.dtype(%3, 15, false, false, none) in "m.norm"
#3 %5: bfloat16[n, 8] = aten::mul.Tensor(%1, %4) in "m.norm"
output "y" %5
)");
  const graph::Graph after = fuse(before, KernelChoice{}, at::kBFloat16);
  EXPECT_THAT(names(after), ElementsAre("shardpipe::rms_norm"));
  expect_same(before, after, 0.008);  // one rounding to bfloat16: 2^-7 of the value
}

TEST(Fuse, LeavesMutatedInputsAlone) {
  const graph::Graph before = parse(R"(input %0 "x": float32[n, 8]
parameter %1 "a.weight": float32[8, 8]
parameter %2 "b.weight": float32[8, 8]
#0 %3: float32[n, 8] = aten::mul.Tensor(%0, %0) in "m"
#1 %4: float32[n, 8] = aten::linear(%3, %1, none) in "m.a"
#2 %5: float32[n, 8] = aten::add_.Tensor(%3, %4, 1) in "m"
#3 %6: float32[n, 8] = aten::linear(%3, %2, none) in "m.b"
output "y" %6
)");
  const graph::Graph after = fuse(before, KernelChoice{}, at::kFloat);
  EXPECT_THAT(names(after), ::testing::Not(::testing::Contains("shardpipe::linear_group")));
  expect_same(before, after, 1e-5);
}

TEST(Fuse, LeavesRegionsAndUpdatesAlone) {
  for (const std::string region : {" no_grad", " autocast(bfloat16, true, false, 0)"}) {
    std::string body = kLayer;
    for (size_t at = body.find(" in \""); at != std::string::npos; at = body.find(" in \"", at + region.size() + 1)) {
      body.insert(at, region);
    }
    const graph::Graph before = parse(body);
    EXPECT_EQ(graph::print(fuse(before, KernelChoice{}, at::kFloat)), graph::print(before));
  }
  // The gate's product is the new value of a state.
  std::string body = kLayer;
  body.insert(body.find("#0"), "state %8 \"seen\" shared: float32[n, 16]\n");
  const graph::Graph after = fuse(parse(body + "update %8 %14\n"), KernelChoice{}, at::kFloat);
  EXPECT_THAT(names(after), ::testing::Not(::testing::Contains("shardpipe::linear_gated")));
  EXPECT_NO_THROW(graph::verify(after, "fuse"));
}

TEST(Fuse, OtherDtypesUsePyTorchsProducts) {
  std::string body = kLayer;
  for (size_t at = body.find("float32"); at != std::string::npos; at = body.find("float32", at)) {
    body.replace(at, 7, "float16");
  }
  const graph::Graph after = fuse(parse(body), KernelChoice{}, at::kHalf);
  for (const graph::Node& node : after.nodes) {
    if (node.op_name() == "shardpipe::linear") {
      EXPECT_EQ(node.arguments[3].as_constant()->toInt(), 0);
      EXPECT_EQ(node.arguments[4].as_constant()->toStringRef(), "aten");
    }
  }
}

}  // namespace
}  // namespace shardpipe::kernels
