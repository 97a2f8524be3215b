// What exported programs bring into the graph: branches, autocast regions, updates of states, wrapped numbers.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include "graph/alias.h"
#include "graph/executor.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "support/errors.h"

namespace shardpipe::graph {
namespace {

using test::expect_error;

// Parses, verifies, and expects that the text prints as it was.
Graph graph_of(const std::string& body) {
  const std::string text = "shardpipe-graph 1\n" + body;
  Graph graph = parse(text, "test");
  EXPECT_EQ(print(graph), text);
  verify(graph, "parse");
  return graph;
}

constexpr const char* kCond = R"(dimension n
input %0 "x": float32[n]
input %1 "c": bool[]
#0 %2: int = aten::sym_size.int(%0, 0) in ""
#1 %3: float32[n] = cond(%1, %0, %2) in "m"
branch
dimension n
input %0 "a": float32[n]
input %1 "k": int
#2 %2: float32[n] = aten::mul.Tensor(%0, %1) in "m"
output "0" %2
end
branch
dimension n
input %0 "a": float32[n]
input %1 "k": int
#3 %2: bool[] = aten::gt.Scalar(%1, 0) in "m"
output "0" %0
end
output "y" %3
)";

TEST(Regions, CondRunsTheChosenBranch) {
  // aten::gt.Scalar takes a tensor: a number there is a wrapped one.
  const Graph graph = graph_of(kCond);
  Executor executor(graph);
  executor.set(0, at::tensor({1.0f, 2.0f, 3.0f}).requires_grad_());
  for (const bool yes : {true, false, true}) {
    executor.set(1, at::scalar_tensor(yes, at::kBool));
    executor.run();
    const at::Tensor y = executor.get(3).toTensor();
    EXPECT_TRUE(at::equal(y, yes ? at::tensor({3.0f, 6.0f, 9.0f}) : at::tensor({1.0f, 2.0f, 3.0f})));
    EXPECT_TRUE(y.requires_grad());
  }
  EXPECT_EQ(graph.nodes[1].op_name(), "cond");
}

// As in Python: zeros, not none, for what only the other branch uses, or is used without gradient.
TEST(Regions, GradientsOfCond) {
  const Graph graph = graph_of(R"(input %0 "c": bool[]
input %1 "x": float32[2]
input %2 "a": float32[2]
input %3 "b": float32[2]
#0 %4: float32[2] %5: float32[2] = cond(%0, %1, %2, %3) in "m"
branch
input %0 "x": float32[2]
input %1 "a": float32[2]
input %2 "b": float32[2]
#1 %3: float32[2] = aten::mul.Tensor(%0, %1) in "m"
#2 %4: float32[2] = aten::sign(%2) no_grad in "m"
output "0" %3
output "1" %4
end
branch
input %0 "x": float32[2]
input %1 "a": float32[2]
input %2 "b": float32[2]
#3 %3: float32[2] = aten::ones_like(%0, none, none, none, none, none) in "m"
output "0" %3
output "1" %3
end
#4 %6: float32[2] = aten::relu_(%4) in "m"
output "y" %6
output "z" %5
)");
  Executor executor(graph);
  const at::Tensor x = at::tensor({3.0f, 4.0f}).requires_grad_();
  const at::Tensor a = at::tensor({5.0f, 6.0f}).requires_grad_();
  const at::Tensor b = at::tensor({7.0f, 8.0f}).requires_grad_();
  for (const auto& [id, tensor] : {std::pair(1, x), {2, a}, {3, b}}) {
    executor.set(id, tensor);
  }
  for (const bool yes : {true, false}) {
    for (at::Tensor tensor : {x, a, b}) {
      tensor.mutable_grad().reset();
    }
    executor.set(0, at::scalar_tensor(yes, at::kBool));
    executor.run();
    const at::Tensor y = executor.get(6).toTensor();
    EXPECT_TRUE(y.equal(yes ? x * a : at::ones(2)));
    EXPECT_TRUE(executor.get(5).toTensor().requires_grad());
    y.sum().backward();
    const at::Tensor zeros = at::zeros(2);
    EXPECT_TRUE(x.grad().equal(yes ? a : zeros));
    EXPECT_TRUE(a.grad().equal(yes ? x : zeros));
    EXPECT_TRUE(b.grad().equal(zeros));
  }
  const c10::NoGradGuard no_grad;
  executor.run();
  EXPECT_FALSE(executor.get(6).toTensor().requires_grad());
}

TEST(Regions, CondIsVerified) {
  Graph graph = parse("shardpipe-graph 1\n" + std::string(kCond), "test");
  const auto refused = [&](auto change, const std::string& part) {
    Graph changed = graph;
    Graph branch = *changed.nodes[1].branches[0];
    change(changed, branch);
    if (!changed.nodes[1].branches.empty()) {
      changed.nodes[1].branches[0] = std::make_shared<const Graph>(std::move(branch));
    }
    expect_error(ErrorCode::internal, part, [&] { verify(changed, "test"); });
  };
  refused([](Graph& g, Graph&) { g.nodes[1].branches.clear(); }, "it has no operator");
  refused([](Graph& g, Graph&) { g.nodes[1].arguments.clear(); }, "it has no condition");
  refused(
      [](Graph& g, Graph&) { g.nodes[1].arguments.pop_back(); },
      "a branch of 2 inputs and 1 outputs for 1 operands and 1 results");
  refused(
      [](Graph&, Graph& b) {
        Value weight;
        weight.kind = ValueKind::parameter;
        weight.name = "w";
        b.outputs[0].value = b.add_value(weight);
      },
      "a branch holds tensors of its own");
  refused([](Graph&, Graph& b) { b.outputs[0].value = 7; }, "branch of #1: output \"0\" is not defined");
}

TEST(Regions, BranchTextIsRefusedWhereItIsNotComplete) {
  const std::string head = "shardpipe-graph 1\ninput %0 \"c\": bool[]\n#0 = cond(%0) in \"\"\n";
  const auto refused = [&](const std::string& rest, const std::string& part) {
    expect_error(ErrorCode::input, part, [&] { parse(head + rest, "test"); });
  };
  refused("", "expected the branches of cond to follow");
  refused("branch\nend\n", "expected the branches of cond to follow");
  refused("output \"y\" %0\n", "expected \"branch\"");
  std::string deep;
  for (int i = 0; i < 20; ++i) {
    deep += "branch\ninput %0 \"c\": bool[]\n#0 = cond(%0) in \"\"\n";
  }
  refused(deep, "expected branches in branches at most 16 deep");
  expect_error(ErrorCode::input, "expected a dtype, not \"real\"", [&] {
    parse(
        "shardpipe-graph 1\n#0 = aten::rand(ints[], none, none, none, none) autocast(real, true, true, 0) in \"\"\n",
        "t");
  });
}

TEST(Regions, AutocastHoldsForItsNodes) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2, 4]
parameter %1 "w": float32[4, 4]
#0 %2: tensor = aten::linear(%0, %1, none) autocast(bfloat16, true, true, 0) in ""
#1 %3: tensor = aten::linear(%0, %1, none) autocast(bfloat16, false, true, 0) in ""
#2 %4: tensor = aten::linear(%0, %1, none) no_grad autocast(float16, true, false, 1) in ""
#3 %5: tensor = aten::linear(%0, %1, none) in ""
output "a" %2
output "b" %3
output "c" %4
output "d" %5
)");
  Executor executor(graph);
  executor.set(0, at::randn({2, 4}));
  executor.set(1, at::randn({4, 4}).requires_grad_());
  for (const bool ambient : {false, true}) {
    at::autocast::set_autocast_enabled(at::kCPU, ambient);
    executor.run();
    EXPECT_EQ(executor.get(2).toTensor().scalar_type(), at::kBFloat16);
    EXPECT_EQ(executor.get(3).toTensor().scalar_type(), at::kFloat);
    EXPECT_EQ(executor.get(4).toTensor().scalar_type(), at::kHalf);
    EXPECT_FALSE(executor.get(4).toTensor().requires_grad());
    EXPECT_EQ(executor.get(5).toTensor().scalar_type(), ambient ? at::kBFloat16 : at::kFloat);
    EXPECT_EQ(at::autocast::is_autocast_enabled(at::kCPU), ambient);
  }
  // An error leaves the caller's state as it was.
  executor.set(0, at::randn({2, 3}));
  EXPECT_THROW(executor.run(), Error);
  EXPECT_TRUE(at::autocast::is_autocast_enabled(at::kCPU));
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
}

TEST(Regions, UpdatesBindStatesAfterTheRun) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2]
state %1 "mean" shared: float32[2]
#0 %2: float32[2] = aten::mul.Tensor(%1, %0) in ""
#1 %3: float32[2] = aten::add.Tensor(%1, %0, 1) in ""
output "y" %2
update %1 %3
)");
  Executor executor(graph);
  const at::Tensor first = at::ones({2});
  executor.set(1, first);
  for (int run = 1; run <= 3; ++run) {
    executor.set(0, at::ones({2}).requires_grad_());
    executor.run();
    // The old state is what the backward pass needs: it is not written.
    executor.get(2).toTensor().sum().backward();
    EXPECT_EQ(executor.get(2).toTensor().sum().item<double>(), 2.0 * run);
    EXPECT_EQ(executor.get(1).toTensor().sum().item<double>(), 2.0 * (run + 1));
    EXPECT_FALSE(executor.get(1).toTensor().requires_grad());
    EXPECT_TRUE(executor.get(3).isNone());
  }
  EXPECT_TRUE(at::equal(first, at::ones({2})));
  EXPECT_EQ(graph.used_tensors(), std::vector<ValueId>{1});
  Graph wrong = graph;
  wrong.updates[0].state = 0;
  expect_error(
      ErrorCode::internal, "update of %0 by %3: a state by a tensor is needed", [&] { verify(wrong, "test"); });
}

TEST(Regions, NumbersInPlaceOfTensorsDoNotPromote) {
  const Graph graph = graph_of(R"(input %0 "x": bfloat16[2]
input %1 "n": int
#0 %2: tensor = aten::add.Tensor(%0, 1.5, 1) in ""
#1 %3: tensor = aten::add.Tensor(%0, %1, 1) in ""
#2 %4: tensor = aten::add.Tensor(2, true, 1) in ""
#3 %5: tensor = aten::einsum("i,j->ij", [%0, %0], none) in ""
output "a" %2
output "b" %3
output "c" %4
output "d" %5
)");
  Executor executor(graph);
  executor.set(0, at::ones({2}, at::kBFloat16));
  executor.set(1, 3);
  executor.run();
  EXPECT_EQ(executor.get(2).toTensor().scalar_type(), at::kBFloat16);
  EXPECT_EQ(executor.get(3).toTensor().scalar_type(), at::kBFloat16);
  EXPECT_EQ(executor.get(3).toTensor()[0].item<double>(), 4.0);
  EXPECT_EQ(executor.get(4).toTensor().scalar_type(), at::kLong);
}

TEST(Regions, StringListsPrint) {
  c10::List<std::string> names;
  names.push_back("a\"b");
  Graph graph;
  Node node;
  node.op = find_operator("aten::rand");
  node.arguments = {Argument(c10::IValue(names)), Argument(c10::IValue(c10::List<std::string>()))};
  graph.nodes.push_back(node);
  const std::string text = print(graph);
  EXPECT_NE(text.find("aten::rand(strings[\"a\\\"b\"], strings[])"), std::string::npos) << text;
  EXPECT_EQ(print(parse(text, "test")), text);
}

}  // namespace
}  // namespace shardpipe::graph
