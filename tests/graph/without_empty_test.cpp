#include "graph/without_empty.h"

#include <gmock/gmock.h>

#include "graph/executor.h"
#include "graph/text.h"
#include "graph/verify.h"

namespace shardpipe::graph {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> node_ids(const Graph& graph) {
  std::vector<int32_t> ids;
  for (const Node& node : graph.nodes) {
    ids.push_back(node.id);
  }
  return ids;
}

// Two chains, of `a` and of `b` rows, that meet in a product.
Graph two_chains() {
  return parse(
      R"(shardpipe-graph 1
dimension a
dimension b
input %0 "x": float32[a, 3]
input %1 "y": float32[b, 3]
state %2 "s" per_sequence: float32[4]
#0 %3: float32[a, 3] = aten::relu(%0) in "x"
#1 %4: int = aten::sym_size.int(%0, 0) in "x"
#2 %5: int = aten::sym_size.int(%1, 0) in "y"
#3 %6: float32[3, a] = aten::transpose.int(%3, 0, 1) in "x"
#4 %7: float32[b, 3] = aten::relu(%1) in "y"
#5 %8: float32[b, a] = aten::matmul(%7, %6) in "y"
#6 %9: float32[b] = aten::sum.dim_IntList(%8, ints[1], false, none) in "y"
#7 %10: float32[4] = aten::add_.Scalar(%2, 1, 1) in "y"
output "sum" %9
output "x" %3
)",
      "test");
}

TEST(WithoutEmpty, KeepsWhatHasElementsAndWhatWrites) {
  const Graph graph = two_chains();
  const Graph left = without_empty(graph, {"a"});
  // b x 0 is empty too, but has no known size: its product stays, and what it reads is there.
  EXPECT_THAT(node_ids(left), ElementsAre(4, 5, 6, 7));
  verify(left, "test");
  EXPECT_THAT(node_ids(without_empty(graph, {"b"})), ElementsAre(0, 7));
  EXPECT_THAT(node_ids(without_empty(graph, {"a", "b"})), ElementsAre(7));
  EXPECT_THAT(node_ids(without_empty(graph, {})), ElementsAre(0, 3, 4, 5, 6, 7)) << "what nobody reads goes";
  EXPECT_EQ(graph.nodes.size(), 8U);
}

TEST(WithoutEmpty, GivesTheSame) {
  const Graph graph = two_chains();
  const at::Tensor x = at::randn({0, 3});
  const at::Tensor y = at::randn({5, 3});
  const auto run = [&](const Graph& part) {
    Executor executor(part);
    for (const ValueId id : part.used_tensors()) {
      const Value& value = part.values[static_cast<size_t>(id)];
      executor.set(id, value.content.defined() ? value.content : at::zeros({4}));
    }
    executor.set(0, x);
    executor.set(1, y);
    executor.run();
    return std::pair(executor.get(9).toTensor(), executor.get(3).toTensor());
  };
  const auto [whole_sum, whole_x] = run(graph);
  const auto [sum, empty] = run(without_empty(graph, {"a"}));
  EXPECT_TRUE(sum.equal(whole_sum));
  EXPECT_EQ(empty.sizes(), whole_x.sizes());
  EXPECT_EQ(empty.scalar_type(), at::kFloat);
}

TEST(WithoutEmpty, ExtentsArePolynomials) {
  const auto empty = [](const char* extent) {
    Value value;
    value.dtype = at::kFloat;
    value.shape = Shape{Size(3), Size::parse(extent)};
    return is_empty(value, {"a", "b"});
  };
  EXPECT_TRUE(empty("a"));
  EXPECT_TRUE(empty("2*a*c+b"));
  EXPECT_TRUE(empty("0"));
  EXPECT_FALSE(empty("a+1"));
  EXPECT_FALSE(empty("a+c"));
  EXPECT_FALSE(empty("c"));
  EXPECT_FALSE(is_empty(Value{}, {"a"})) << "no shape";
}

}  // namespace
}  // namespace shardpipe::graph
