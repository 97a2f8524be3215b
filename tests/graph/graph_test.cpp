#include "graph/graph.h"

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
parameter %1 "w" tied "head.w": float32[4, 4]
buffer %2 "unused.by.nodes": float32[4]
state %3 "k": float32[n, 4]
#7 %4: float32[n, 4] = aten::linear(%0, %1, none) in "a.b"
#9 %5: float32[n, 2] %6: float32[n, 2] = aten::split.Tensor(%4, 2, 1) in ""
#3 %7: int = aten::sym_size.int(%0, 0) in ""
#4 %8: int = scalar::mul(%7, 2) in ""
#5 %9: float32[n, 8] = aten::cat([%5, %6, %4], 1) in ""
output "y" %9
)",
      "example");
}

TEST(Graph, FindsNamedTensors) {
  const Graph graph = example();
  EXPECT_EQ(graph.find("x"), 0);
  EXPECT_EQ(graph.find("w"), 1);
  EXPECT_EQ(graph.find("head.w"), 1);
  EXPECT_EQ(graph.find("k"), 3);
  EXPECT_EQ(graph.find("y"), kNoValue);  // an output's name is not its value's
  EXPECT_EQ(graph.find(""), kNoValue);
}

TEST(Graph, ListsOperandsAndUsedTensors) {
  const Graph graph = example();
  EXPECT_EQ(Graph::operands(graph.nodes[0]), (std::vector<ValueId>{0, 1}));
  EXPECT_EQ(Graph::operands(graph.nodes[4]), (std::vector<ValueId>{5, 6, 4}));
  EXPECT_EQ(Graph::operands(graph.nodes[4].arguments[1]), (std::vector<ValueId>{}));
  EXPECT_EQ(graph.used_tensors(), (std::vector<ValueId>{1}));
  Graph more = graph;
  more.outputs.push_back({"state", 3});
  EXPECT_EQ(more.used_tensors(), (std::vector<ValueId>{1, 3}));
}

TEST(Graph, KnowsListResults) {
  const Graph graph = example();
  EXPECT_FALSE(graph.nodes[0].returns_list());
  EXPECT_TRUE(graph.nodes[1].returns_list());
  EXPECT_FALSE(graph.nodes[3].returns_list());
  EXPECT_EQ(graph.nodes[1].op_name(), "aten::split.Tensor");
  EXPECT_EQ(graph.nodes[0].op_name(), "aten::linear");
  EXPECT_EQ(graph.nodes[3].op_name(), "scalar::mul");
}

TEST(Graph, FindsOperators) {
  EXPECT_EQ(find_operator("aten::add.Tensor").operator_name(), c10::OperatorName("aten::add", "Tensor"));
  EXPECT_EQ(find_operator("aten::linear").operator_name(), c10::OperatorName("aten::linear", ""));
  for (const char* name : {"aten::no_such", "aten::add.NoSuch", "linear", "", "a.b::c"}) {
    expect_error(ErrorCode::input, "unknown operator " + std::string(name), [&] { find_operator(name); });
  }
}

TEST(Graph, NamesScalarOperatorsAndDtypes) {
  for (const ScalarOperator op :
       {ScalarOperator::add, ScalarOperator::sub, ScalarOperator::mul, ScalarOperator::floordiv, ScalarOperator::mod}) {
    EXPECT_EQ(parse_scalar_operator(to_string(op)), op);
  }
  EXPECT_EQ(parse_scalar_operator("none"), std::nullopt);
  EXPECT_EQ(parse_scalar_operator("power"), std::nullopt);
  EXPECT_EQ(dtype_name(at::kBFloat16), "bfloat16");
  EXPECT_EQ(parse_dtype("int64"), at::kLong);
  EXPECT_EQ(parse_dtype("half"), std::nullopt);
  EXPECT_EQ(dtype_name(at::kQInt8), "QInt8");
}

TEST(Graph, CountsBytes) {
  const Graph graph = example();
  EXPECT_EQ(size_bytes(graph.values[0], {{"n", 5}}), 5 * 4 * 4);
  EXPECT_EQ(size_bytes(graph.values[7], {}), 0);  // an integer
  expect_error(ErrorCode::internal, "dimension n", [&] { size_bytes(graph.values[0], {}); });
}

}  // namespace
}  // namespace shardpipe::graph
