#include "graph/op_table.h"

#include <gtest/gtest.h>

#include <set>

#include "graph/interpret.h"
#include "graph/text.h"

namespace shardpipe::graph {
namespace {

// The signatures of Shardpipe's operators, which live in a folder that this one does not know.
void define_shardpipe_operators() {
  static torch::Library library(torch::Library::FRAGMENT, "shardpipe", std::nullopt, __FILE__, __LINE__);
  static const bool defined = [] {
    const auto linear = [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x, w); };
    library.def(
        "linear(Tensor x, Tensor weight, Tensor? bias, int few_rows, str many) -> Tensor",
        [=](const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>&, int64_t, c10::string_view) {
          return linear(x, w);
        });
    library.def(
        "linear_group(Tensor x, Tensor[] weights, Tensor?[] biases, int few_rows, str many) -> Tensor[]",
        [=](const at::Tensor& x, at::TensorList ws, const c10::List<std::optional<at::Tensor>>&, int64_t,
            c10::string_view) {
          std::vector<at::Tensor> results;
          for (const at::Tensor& w : ws) {
            results.push_back(linear(x, w));
          }
          return results;
        });
    library.def(
        "linear_gated(Tensor x, Tensor gate, Tensor up, Tensor? gate_bias, Tensor? up_bias, str activation, "
        "int few_rows, str many) -> Tensor",
        [=](const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up, const std::optional<at::Tensor>&,
            const std::optional<at::Tensor>&, c10::string_view, int64_t,
            c10::string_view) { return at::silu(linear(x, gate)) * linear(x, up); });
    for (const char* name : {"cached_attention", "cached_attention_reference"}) {
      library.def(
          (std::string(name) +
           "(Tensor q, Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor slots, Tensor positions, "
           "float scale) -> Tensor")
              .c_str(),
          [](const at::Tensor& q, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
             const at::Tensor&, const at::Tensor&, double) { return q.flatten(1).clone(); });
    }
    for (const char* name : {"cross_attention", "cross_attention_reference"}) {
      library.def(
          (std::string(name) +
           "(Tensor q, Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor slots, Tensor source_slots, "
           "Tensor source_positions, Tensor lengths, float scale) -> Tensor")
              .c_str(),
          [](const at::Tensor& q, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
             const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
             double) { return q.flatten(1).clone(); });
    }
    library.def(
        "sequence_attention(Tensor q, Tensor k, Tensor v, Tensor slots, float scale) -> Tensor",
        [](const at::Tensor& q, const at::Tensor&, const at::Tensor&, const at::Tensor&, double) {
          return q.flatten(1).clone();
        });
    return true;
  }();
  static_cast<void>(defined);
}

struct Case {
  std::string declarations;  // inputs
  std::string node;          // the last line; %9 and following are results
  int64_t flops;
};

// Every number is counted by hand: rows * columns * 2 per element of the reduction.
std::vector<Case> cases() {
  const std::string x = "input %0 \"x\": float32[2, 3, 5]\n";  // 6 rows of 5
  const std::string w = "input %1 \"w\": float32[7, 5]\n";     // 7 products of 5
  const std::string u = "input %2 \"u\": float32[4, 5]\n";
  const std::string m = "input %0 \"m\": float32[3, 5]\ninput %1 \"n\": float32[5, 7]\ninput %2 \"c\": float32[3, 7]\n";
  const std::string b =
      "input %0 \"m\": float32[2, 3, 5]\ninput %1 \"n\": float32[2, 5, 7]\ninput %2 \"c\": float32[2, 3, 7]\n";
  const std::string table = "input %0 \"table\": float32[6, 4]\ninput %1 \"ids\": int64[3]\n";
  const std::string one = "ints[1], ints[0], ints[1], ";
  const std::string two = "ints[1, 1], ints[0, 0], ints[1, 1], ";
  const std::string three = "ints[1, 1, 1], ints[0, 0, 0], ints[1, 1, 1], ";
  const std::string c1 = "input %0 \"x\": float32[2, 4, 8]\ninput %1 \"w\": float32[6, 2, 3]\n";  // 2 groups
  const std::string c2 = "input %0 \"x\": float32[2, 4, 8, 8]\ninput %1 \"w\": float32[6, 4, 3, 3]\n";
  const std::string c3 = "input %0 \"x\": float32[1, 2, 4, 4, 4]\ninput %1 \"w\": float32[3, 2, 2, 2, 2]\n";
  const std::string t1 = "input %0 \"x\": float32[2, 4, 8]\ninput %1 \"w\": float32[4, 3, 3]\n";  // in 4, out 3
  const std::string t2 = "input %0 \"x\": float32[2, 4, 8, 8]\ninput %1 \"w\": float32[4, 3, 3, 3]\n";
  const std::string t3 = "input %0 \"x\": float32[1, 2, 4, 4, 4]\ninput %1 \"w\": float32[2, 3, 2, 2, 2]\n";
  const std::string attention =
      "input %0 \"q\": float32[2, 3, 4, 8]\ninput %1 \"k\": float32[2, 3, 6, 8]\ninput %2 \"v\": float32[2, 3, 6, "
      "10]\n";
  const std::string cache =
      "input %0 \"q\": float32[5, 4, 8]\ninput %1 \"k\": float32[5, 2, 8]\ninput %2 \"v\": float32[5, 2, 8]\n"
      "state %3 \"kc\" per_sequence: float32[3, 2, 16, 8]\nstate %4 \"vc\" per_sequence: float32[3, 2, 16, 8]\n"
      "input %5 \"slots\": int64[5]\ninput %6 \"positions\": int64[5]\n";
  const std::string cached = "(%0, %1, %2, %3, %4, %5, %6, 1.0) in \"\"\n";
  const std::string crossed = "(%0, %1, %2, %3, %4, %5, %5, %6, %6, 1.0) in \"\"\n";
  return {
      {m, "#0 %9: float32[3, 7] = aten::mm(%0, %1) in \"\"\n", 3 * 7 * 2 * 5},
      {m, "#0 %9: float32[3, 7] = aten::matmul(%0, %1) in \"\"\n", 3 * 7 * 2 * 5},
      {b, "#0 %9: float32[2, 3, 7] = aten::matmul(%0, %1) in \"\"\n", 2 * 3 * 7 * 2 * 5},
      {b, "#0 %9: float32[2, 3, 7] = aten::bmm(%0, %1) in \"\"\n", 2 * 3 * 7 * 2 * 5},
      {m, "#0 %9: float32[3, 7] = aten::addmm(%2, %0, %1, 1, 1) in \"\"\n", 3 * 7 * 2 * 5},
      {b, "#0 %9: float32[2, 3, 7] = aten::baddbmm(%2, %0, %1, 1, 1) in \"\"\n", 2 * 3 * 7 * 2 * 5},
      {x + w, "#0 %9: float32[2, 3, 7] = aten::linear(%0, %1, none) in \"\"\n", 6 * 7 * 2 * 5},
      {x + w, "#0 %9: float32[2, 3, 7] = shardpipe::linear(%0, %1, none, 16, \"aten\") in \"\"\n", 6 * 7 * 2 * 5},
      {x + w + u,
       "#0 %9: float32[2, 3, 7] %10: float32[2, 3, 4] = shardpipe::linear_group(%0, [%1, %2], [], 16, \"aten\") in "
       "\"\"\n",
       6 * (7 + 4) * 2 * 5},
      {x + w,
       "#0 %9: float32[2, 3, 7] = shardpipe::linear_gated(%0, %1, %1, none, none, \"silu\", 16, \"aten\") in \"\"\n",
       6 * 14 * 2 * 5 + 8 * 42},
      {c1, "#0 %9: float32[2, 6, 6] = aten::conv1d(%0, %1, none, " + one + "2) in \"\"\n", 2 * 6 * 6 * 2 * 2 * 3},
      {c2, "#0 %9: float32[2, 6, 6, 6] = aten::conv2d(%0, %1, none, " + two + "1) in \"\"\n", 2 * 6 * 36 * 2 * 4 * 9},
      {c3, "#0 %9: float32[1, 3, 3, 3, 3] = aten::conv3d(%0, %1, none, " + three + "1) in \"\"\n", 3 * 27 * 2 * 2 * 8},
      {t1,
       "#0 %9: float32[2, 3, 10] = aten::conv_transpose1d(%0, %1, none, ints[1], ints[0], ints[0], 1, ints[1]) in "
       "\"\"\n",
       2 * 4 * 8 * 2 * 3 * 3},
      {t2,
       "#0 %9: float32[2, 3, 10, 10] = aten::conv_transpose2d.input(%0, %1, none, ints[1, 1], ints[0, 0], ints[0, 0], "
       "1, "
       "ints[1, 1]) in \"\"\n",
       2 * 4 * 64 * 2 * 3 * 9},
      {t3,
       "#0 %9: float32[1, 3, 5, 5, 5] = aten::conv_transpose3d.input(%0, %1, none, ints[1, 1, 1], ints[0, 0, 0], "
       "ints[0, 0, 0], 1, ints[1, 1, 1]) in \"\"\n",
       2 * 64 * 2 * 3 * 8},
      {c2, "#0 %9: float32[2, 6, 6, 6] = aten::convolution(%0, %1, none, " + two + "false, ints[0, 0], 1) in \"\"\n",
       2 * 6 * 36 * 2 * 4 * 9},
      {t2, "#0 %9: float32[2, 3, 10, 10] = aten::convolution(%0, %1, none, " + two + "true, ints[0, 0], 1) in \"\"\n",
       2 * 4 * 64 * 2 * 3 * 9},
      {attention,
       "#0 %9: float32[2, 3, 4, 10] = aten::scaled_dot_product_attention(%0, %1, %2, none, 0.0, false, none, false) in "
       "\"\"\n",
       6 * (4 * 6 * 2 * 8 + 4 * 10 * 2 * 6)},
      {cache, "#0 %9: float32[5, 32] = shardpipe::cached_attention" + cached, 5 * 4 * (16 * 2 * 8 + 8 * 2 * 16)},
      {cache, "#0 %9: float32[5, 32] = shardpipe::cached_attention_reference" + cached,
       5 * 4 * (16 * 2 * 8 + 8 * 2 * 16)},
      {cache, "#0 %9: float32[5, 32] = shardpipe::cross_attention" + crossed, 5 * 4 * (16 * 2 * 8 + 8 * 2 * 16)},
      {cache, "#0 %9: float32[5, 32] = shardpipe::cross_attention_reference" + crossed,
       5 * 4 * (16 * 2 * 8 + 8 * 2 * 16)},
      {cache, "#0 %9: float32[5, 32] = shardpipe::sequence_attention(%0, %1, %2, %5, 1.0) in \"\"\n",
       5 * 4 * (5 * 2 * 8 + 8 * 2 * 5)},
      {table, "#0 %9: float32[3, 4] = aten::embedding(%0, %1, -1, false, false) in \"\"\n", 0},
      {table, "#0 %9: float32[3, 4] = aten::index_select(%0, 0, %1) in \"\"\n", 0},
      // Without a row: views cost nothing, the rest one operation an element.
      {x, "#0 %9: float32[3, 2, 5] = aten::transpose.int(%0, 0, 1) in \"\"\n", 0},
      {x, "#0 %9: float32[6, 5] = aten::reshape(%0, ints[6, 5]) in \"\"\n", 0},
      {x, "#0 %9: float32[1, 3, 5] %10: float32[1, 3, 5] = aten::split.Tensor(%0, 1, 0) in \"\"\n", 0},
      {x, "#0 %9: float32[2, 3, 5] = aten::relu(%0) in \"\"\n", 30},
      {x, "#0 %9: float32[2, 3, 5] = aten::relu_(%0) in \"\"\n", 30},
      {x, "#0 %9: float32[2] = aten::sum.dim_IntList(%0, ints[1, 2], false, none) in \"\"\n", 2},
      {x, "#0 %9: int = aten::sym_size.int(%0, 0) in \"\"\n", 0},
      {x, "#0 %9: int = scalar::mul(2, 3) in \"\"\n", 0},
  };
}

TEST(OpTable, EachRowCountsWhatTheOperatorDoes) {
  define_shardpipe_operators();
  std::set<std::string> seen;
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.node);
    const Graph graph = parse("shardpipe-graph 1\n" + c.declarations + c.node, "test");
    const Node& node = graph.nodes.at(0);
    EXPECT_EQ(node_flops(graph, node, {}), c.flops);
    if (!node.op) {
      continue;
    }
    seen.insert(node.op->operator_name().name);
    // The shapes that the count was made for are those of the operator.
    test::Interpreter run(graph);
    for (size_t id = 0; id < graph.values.size(); ++id) {
      if (graph.values[id].kind != ValueKind::result) {
        run.values[id] = at::zeros(evaluate(*graph.values[id].shape, {}), *graph.values[id].dtype);
      }
    }
    run.call(node);
    for (const ValueId id : node.results) {
      if (const auto& shape = graph.values[static_cast<size_t>(id)].shape) {
        EXPECT_EQ(run.tensor(id).sizes(), evaluate(*shape, {}));
      }
    }
  }
  for (const OpRow& row : op_table()) {
    EXPECT_EQ(seen.count(row.name), 1u) << row.name << " has no case";
  }
}

TEST(OpTable, FindsRowsByName) {
  for (const OpRow& row : op_table()) {
    EXPECT_EQ(find_op(row.name), &row);
  }
  EXPECT_EQ(find_op("aten::relu"), nullptr);
  EXPECT_EQ(find_op("aten::linea"), nullptr);
  EXPECT_EQ(find_op(""), nullptr);
  EXPECT_EQ(find_op("zzz"), nullptr);
}

TEST(OpTable, FollowsNamedDimensionsAndUnknownShapes) {
  const Graph graph = parse(
      R"(shardpipe-graph 1
dimension n
input %0 "x": float32[n, 5]
parameter %1 "w": float32[7, 5]
input %2 "unknown": tensor
#0 %3: float32[n, 7] = aten::linear(%0, %1, none) in ""
#1 %4: tensor = aten::linear(%2, %1, none) in ""
#2 %5: tensor = aten::matmul(%2, %1) in ""
#3 %6: tensor = aten::scaled_dot_product_attention(%2, %2, %2, none, 0.0, false, none, false) in ""
#4 %7: tensor = aten::conv1d(%2, %2, none, ints[1], ints[0], ints[1], 1) in ""
#5 %8: tensor = aten::relu(%2) in ""
)",
      "test");
  EXPECT_EQ(node_flops(graph, graph.nodes[0], {{"n", 11}}), 11 * 7 * 2 * 5);
  for (size_t n = 1; n < graph.nodes.size(); ++n) {
    EXPECT_EQ(node_flops(graph, graph.nodes[n], {{"n", 11}}), 0) << graph.nodes[n].op_name();
  }
}

}  // namespace
}  // namespace shardpipe::graph
