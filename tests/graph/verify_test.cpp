#include "graph/verify.h"

#include <gtest/gtest.h>

#include "graph/text.h"
#include "support/errors.h"

namespace shardpipe::graph {
namespace {

using test::expect_error;

Graph example() {
  return parse(
      R"(shardpipe-graph 1
dimension n
input %0 "x": float32[n, 4]
parameter %1 "w" tied "v": float32[4, 4]
buffer %2 "b" content "0000803f00000040": float32[2]
state %3 "k" per_sequence: float32[n, 4]
#0 %4: float32[n, 4] = aten::linear(%0, %1, none) in "a"
#1 %5: float32[n, 2] %6: float32[n, 2] = aten::split.Tensor(%4, 2, 1) in "a"
#2 %7: int = aten::sym_size.int(%0, 0) in "a"
#3 %8: int = scalar::mul(%7, 2) in "a"
#4 %9: float32[n, 4] = aten::cat([%5, %6], 1) in "a"
#5 %10: float32[2*n, 2] = aten::view(%9, [%8, 2]) in "a"
#6 %11: float32[n, 4] = aten::copy_(%3, %9, false) in "a"
#7 %12: float32[2*n, 2] = aten::add.Tensor(%10, %2, 1) in "a"
output "y" %12
)",
      "example");
}

// The example after `change`, which must break the rule that `message` names.
template <typename F>
void expect_broken(const std::string& message, F change) {
  Graph graph = example();
  change(graph);
  expect_error(ErrorCode::internal, "graph after test: " + message, [&] { verify(graph, "test"); });
}

TEST(Verify, ExampleHolds) {
  EXPECT_NO_THROW(verify(example(), "test"));
}

TEST(Verify, Names) {
  expect_broken("a dimension is declared twice", [](Graph& g) { g.dimensions.emplace_back("n"); });
  expect_broken("dimension n of %0 is not declared", [](Graph& g) { g.dimensions.clear(); });
  expect_broken("the name \"\" of %1 is empty or used twice", [](Graph& g) { g.values[1].name.clear(); });
  expect_broken("the name \"w\" of %3 is empty or used twice", [](Graph& g) { g.values[3].name = "w"; });
  expect_broken("the name \"x\" of %1 is used twice", [](Graph& g) { g.values[1].tied_names = {"x"}; });
  expect_broken("dtype or shape of \"b\" are not its content's", [](Graph& g) { g.values[2].dtype = at::kInt; });
  expect_broken("dtype or shape of \"b\" are not its content's", [](Graph& g) { g.values[2].shape = Shape{1, 2}; });
  expect_broken("input %1 is not declared as one or twice", [](Graph& g) { g.inputs.push_back(1); });
  expect_broken("input %0 is not declared as one or twice", [](Graph& g) { g.inputs.push_back(0); });
  expect_broken("input %99 is not declared as one or twice", [](Graph& g) { g.inputs.push_back(99); });
  expect_broken("two outputs are named \"y\"", [](Graph& g) { g.outputs.push_back({"y", 4}); });
  expect_broken("output \"z\" is not defined", [](Graph& g) { g.outputs.push_back({"z", 99}); });
  expect_broken("output \"z\" is not defined", [](Graph& g) { g.outputs.push_back({"z", kNoValue}); });
  expect_broken("output \"z\" is not defined", [](Graph& g) {
    g.nodes.pop_back();
    g.outputs = {{"z", 12}};
  });
}

TEST(Verify, Nodes) {
  expect_broken("node #0 aten::split.Tensor in \"a\": its id is used twice", [](Graph& g) { g.nodes[1].id = 0; });
  expect_broken(
      "node #3 scalar::none in \"a\": it has no operator", [](Graph& g) { g.nodes[3].scalar = ScalarOperator::none; });
}

TEST(Verify, Arguments) {
  expect_broken("node #1 aten::split.Tensor in \"a\": %4 is used before it is defined", [](Graph& g) {
    std::swap(g.nodes[0], g.nodes[1]);
  });
  expect_broken("node #0 aten::linear in \"a\": %0 is used before it is defined", [](Graph& g) { g.inputs.clear(); });
  expect_broken("node #4 aten::cat in \"a\": %77 is used before it is defined", [](Graph& g) {
    g.nodes[4].arguments[0].as_list()->push_back(Argument::value(77));
  });
  expect_broken("node #0 aten::linear in \"a\": 2 arguments, its schema has 3", [](Graph& g) {
    g.nodes[0].arguments.pop_back();
  });
  expect_broken(
      "node #3 scalar::mul in \"a\": 1 arguments, its schema has 2", [](Graph& g) { g.nodes[3].arguments.pop_back(); });
  const auto expect_misfit = [](size_t node, size_t at, const std::string& rule, const Argument& argument) {
    expect_broken(rule, [&](Graph& g) { g.nodes[node].arguments[at] = argument; });
  };
  expect_misfit(0, 1, "node #0 aten::linear in \"a\": argument weight is no Tensor", Argument(c10::IValue()));
  expect_misfit(
      0, 1, "node #0 aten::linear in \"a\": argument weight is no Tensor", Argument(c10::IValue(at::ones({1}))));
  expect_misfit(0, 1, "node #0 aten::linear in \"a\": argument weight is no Tensor", Argument(c10::IValue("w")));
  expect_misfit(3, 0, "node #3 scalar::mul in \"a\": argument 0 is no Scalar", Argument(c10::IValue("1")));
  expect_misfit(3, 0, "node #3 scalar::mul in \"a\": argument 0 is no Scalar", Argument::value(0));
  expect_misfit(1, 1, "node #1 aten::split.Tensor in \"a\": argument split_size is no int", Argument::value(0));
  expect_misfit(5, 1, "node #5 aten::view in \"a\": argument size is no int[]", Argument(c10::IValue(int64_t{3})));
  expect_misfit(5, 1, "node #5 aten::view in \"a\": argument size is no int[]", Argument::list({Argument::value(0)}));
  expect_misfit(
      4, 0, "node #4 aten::cat in \"a\": argument tensors is no Tensor[]", Argument::list({Argument(c10::IValue())}));
  expect_misfit(4, 1, "node #4 aten::cat in \"a\": argument dim is no int", Argument::list({}));
  expect_misfit(7, 2, "node #7 aten::add.Tensor in \"a\": argument alpha is no Scalar", Argument(c10::IValue("1")));
}

TEST(Verify, ArgumentsOfOtherTypes) {
  const Graph graph = parse(
      R"(shardpipe-graph 1
input %0 "x": float32[2]
input %1 "rate": float
input %2 "flag": bool_value
input %3 "mode": string
input %4 "count": int
#0 %5: float32[2] = aten::dropout(%0, %1, %2) in ""
#1 %6: float32[2] = aten::mul.Scalar(%5, %1) in ""
#2 %7: float32[2] = aten::mul.Scalar(%6, %4) in ""
#3 %8: float32[2] = aten::gelu(%7, %3) in ""
output "y" %8
)",
      "example");
  EXPECT_NO_THROW(verify(graph, "test"));
  for (const auto& [node, argument, value] :
       std::vector<std::tuple<size_t, size_t, ValueId>>{{0, 1, 4}, {0, 2, 1}, {1, 1, 3}, {3, 1, 1}, {0, 0, 3}}) {
    Graph broken = graph;
    broken.nodes[node].arguments[argument] = Argument::value(value);
    expect_error(ErrorCode::internal, " is no ", [&] { verify(broken, "test"); });
  }
}

TEST(Verify, Results) {
  expect_broken(
      "node #0 aten::linear in \"a\": 0 results, its schema has 1", [](Graph& g) { g.nodes[0].results.clear(); });
  expect_broken(
      "node #3 scalar::mul in \"a\": 0 results, its schema has 1", [](Graph& g) { g.nodes[3].results.clear(); });
  expect_broken("node #0 aten::linear in \"a\": result %1 is defined twice or is a named tensor", [](Graph& g) {
    g.nodes[0].results = {1};
  });
  expect_broken("node #1 aten::split.Tensor in \"a\": result %5 is defined twice", [](Graph& g) {
    g.nodes[1].results = {5, 5};
  });
  expect_broken("node #0 aten::linear in \"a\": the type of result %4 is not the schema's", [](Graph& g) {
    g.values[4].type = ValueType::integer;
  });
  expect_broken("node #1 aten::split.Tensor in \"a\": the type of result %6 is not the schema's", [](Graph& g) {
    g.values[6].type = ValueType::string;
  });
  expect_broken("node #2 aten::sym_size.int in \"a\": the type of result %7 is not the schema's", [](Graph& g) {
    g.values[7].type = ValueType::tensor;
  });
  expect_broken("node #3 scalar::mul in \"a\": the type of result %8 is not the schema's", [](Graph& g) {
    g.values[8].type = ValueType::tensor;
  });
}

TEST(Verify, Writes) {
  expect_broken("node #6 aten::copy_ in \"a\": it writes to \"w\", which is not a state", [](Graph& g) {
    g.nodes[6].arguments[0] = Argument::value(1);
  });
  expect_broken("node #6 aten::copy_ in \"a\": it writes to \"x\", which is not a state", [](Graph& g) {
    g.nodes[6].arguments[0] = Argument::value(0);
  });
  Graph graph = example();  // a result and a buffer may be written
  graph.nodes[6].arguments[0] = Argument::value(9);
  EXPECT_NO_THROW(verify(graph, "test"));
  graph.nodes[6].arguments[0] = Argument::value(2);
  EXPECT_NO_THROW(verify(graph, "test"));
}

}  // namespace
}  // namespace shardpipe::graph
