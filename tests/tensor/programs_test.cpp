// Models of other kinds than the families: images, fused weights, heads made in many ways, plans of the user's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/trace/module_scope.h"
#include "frontend/trace/trace.h"
#include "support/errors.h"
#include "tensor/compare.h"
#include "tensor/pins.h"

namespace shardpipe {
namespace {

using graph::Graph;
using graph::Size;
using tensor::Pin;

const Size kBatch = Size::symbol("batch");

struct Weight {
  const char* name;
  std::vector<int64_t> sizes;
};

using Weights = std::map<std::string, at::Tensor>;

Graph trace_program(
    const graph::Shape& input,
    const std::vector<Weight>& weights,
    const std::function<at::Tensor(const at::Tensor& x, const Weights& w)>& forward) {
  trace::Program program;
  program.inputs = {{"x", at::kDouble, input}};
  auto made = std::make_shared<Weights>();
  for (const Weight& weight : weights) {
    const at::Tensor tensor = at::empty(weight.sizes, at::TensorOptions(at::kDouble).device(at::kMeta));
    (*made)[weight.name] = tensor;
    program.tensors.push_back({weight.name, tensor});
  }
  program.forward = [made, forward](const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>&) {
    return trace::NamedOutputs{{"y", forward(inputs[0], *made)}};
  };
  return trace::trace(program);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return at::matmul(at::softmax(at::matmul(q, k.transpose(-2, -1)) * 0.3, -1), v);
}

// Columns of a fused [q | k | v], 6 query heads of 4 with 2 key heads.
Graph fused_attention() {
  return trace_program(
      {kBatch, 5, 24}, {{"qkv.weight", {40, 24}}, {"qkv.bias", {40}}, {"out.weight", {24, 24}}, {"out.bias", {24}}},
      [](const at::Tensor& x, const Weights& w) {
        const auto parts = at::linear(x, w.at("qkv.weight"), w.at("qkv.bias")).split_with_sizes({24, 8, 8}, -1);
        const at::Tensor q = parts[0].unflatten(-1, {6, 4}).transpose(1, 2);
        const at::Tensor k = parts[1].unflatten(-1, {2, 4}).transpose(1, 2).repeat_interleave(3, 1);
        const at::Tensor v = parts[2].unflatten(-1, {2, 4}).transpose(1, 2).repeat_interleave(3, 1);
        return x + at::linear(attend(q, k, v).transpose(1, 2).flatten(2), w.at("out.weight"), w.at("out.bias"));
      });
}

TEST(Programs, FusedQueriesKeysValues) {
  const Graph graph = fused_attention();
  const tensor::Sharded sharded = test::expect_same(graph, {{"batch", 3}}, 2, true);
  EXPECT_EQ(sharded.shards.at("qkv.weight").blocks, (std::vector<int64_t>{24, 8, 8}));
  EXPECT_EQ(sharded.shards.at("out.weight").dim, 1);
  EXPECT_EQ(test::count(sharded, "all_reduce", false), 1);
  EXPECT_EQ(test::count(sharded, "all_gather", false), 0);
  EXPECT_EQ(sharded.graphs.size(), 1U);  // even: every part runs the same
}

// Heads within the batch, as bmm wants them; q, k and v interleaved by head in one weight.
Graph heads_in_batch() {
  return trace_program(
      {kBatch, 5, 24}, {{"qkv.weight", {72, 24}}, {"out.weight", {24, 24}}}, [](const at::Tensor& x, const Weights& w) {
        const at::Tensor qkv = at::linear(x, w.at("qkv.weight")).unflatten(-1, {6, 12});
        const auto parts = qkv.chunk(3, -1);
        const auto heads = [&](const at::Tensor& t) { return t.transpose(1, 2).reshape({x.size(0) * 6, 5, 4}); };
        const at::Tensor scores = at::bmm(heads(parts[0]), heads(parts[1]).transpose(1, 2));
        const at::Tensor mixed = at::bmm(at::softmax(scores, -1), heads(parts[2]));
        return at::linear(mixed.view({x.size(0), 6, 5, 4}).transpose(1, 2).flatten(2), w.at("out.weight"));
      });
}

TEST(Programs, HeadsInTheBatch) {
  const Graph graph = heads_in_batch();
  for (const int parts : {2, 3, 4}) {  // of four parts two have one head
    const tensor::Sharded sharded = test::expect_same(graph, {{"batch", 3}}, parts, true);
    EXPECT_EQ(sharded.shards.size(), 2U) << parts;
    EXPECT_EQ(test::count(sharded, "all_reduce", false), 1) << parts;
    EXPECT_EQ(test::count(sharded, "all_gather", false), 0) << parts;
  }
}

TEST(Programs, FusedGateAndUp) {
  const Graph graph = trace_program(
      {kBatch, 24}, {{"gate_up.weight", {96, 24}}, {"down.weight", {24, 48}}, {"down.bias", {24}}},
      [](const at::Tensor& x, const Weights& w) {
        const auto halves = at::linear(x, w.at("gate_up.weight")).chunk(2, -1);
        return at::linear(at::silu(halves[0]) * halves[1], w.at("down.weight"), w.at("down.bias"));
      });
  const tensor::Sharded sharded = test::expect_same(graph, {{"batch", 3}}, 3, true);
  EXPECT_EQ(sharded.shards.at("gate_up.weight").blocks, (std::vector<int64_t>{48}));
  EXPECT_EQ(test::count(sharded, "all_reduce", false), 1);
}

// Residual blocks, a depthwise convolution, a head.
TEST(Programs, Images) {
  const Graph graph = trace_program(
      {kBatch, 3, 8, 8},
      {{"stem.weight", {16, 3, 3, 3}},
       {"stem.bias", {16}},
       {"a.weight", {32, 16, 3, 3}},
       {"a.bias", {32}},
       {"depth.weight", {32, 1, 3, 3}},
       {"b.weight", {16, 32, 1, 1}},
       {"b.bias", {16}},
       {"norm.weight", {32}},
       {"norm.bias", {32}},
       {"head.weight", {10, 16}}},
      [](const at::Tensor& x, const Weights& w) {
        const at::Tensor stem = at::conv2d(x, w.at("stem.weight"), w.at("stem.bias"), {1, 1}, {1, 1}, {1, 1}, 1);
        at::Tensor h = at::conv2d(stem, w.at("a.weight"), w.at("a.bias"), {1, 1}, {1, 1}, {1, 1}, 1);
        h = at::batch_norm(h, w.at("norm.weight"), w.at("norm.bias"), {}, {}, true, 0.1, 1e-5, false).relu();
        h = at::conv2d(h, w.at("depth.weight"), {}, {1, 1}, {1, 1}, {1, 1}, 32);
        h = stem + at::conv2d(h, w.at("b.weight"), w.at("b.bias"));
        return at::linear(at::adaptive_avg_pool2d(h.relu(), {1, 1}).flatten(1), w.at("head.weight"));
      });
  for (const int parts : {2, 3}) {
    const tensor::Sharded sharded = test::expect_same(graph, {{"batch", 3}}, parts, true);
    EXPECT_EQ(sharded.shards.count("a.weight") + sharded.shards.count("depth.weight"), 2U);
    EXPECT_EQ(sharded.shards.at("b.weight").dim, 1);
  }
}

// A vocabulary in pieces from the table to the loss: nobody has all logits.
TEST(Programs, CrossEntropyOfPieces) {
  for (const int64_t reduction : {0, 1, 2}) {
    const Graph graph =
        trace_program({kBatch, 6, 24}, {{"head.weight", {1001, 24}}}, [&](const at::Tensor& x, const Weights& w) {
          const at::Tensor logits = at::linear(x, w.at("head.weight")).slice(1, 0, -1).flatten(0, 1);
          // Of some rows the class is ignored.
          const at::Tensor target = (x.slice(1, 1).select(2, 3) * 500 + 500).to(at::kLong).flatten();
          const at::Tensor some = target.masked_fill(target.remainder(3).eq(0), -100);
          return at::cross_entropy_loss(logits, some, {}, reduction);
        });
    for (const int parts : {2, 3}) {
      const tensor::Sharded sharded = test::expect_same(graph, {{"batch", 3}}, parts, true);
      EXPECT_EQ(sharded.shards.size(), 1U);
      EXPECT_EQ(test::count(sharded, "cross_entropy", false), 1);
      EXPECT_EQ(test::count(sharded, "all_gather", false), 0);
    }
  }
}

// An MLP whose user wants the reverse of the usual pairs, and other ways.
TEST(Programs, PlansOfTheUsers) {
  const Graph graph = trace_program(
      {kBatch, 24}, {{"up.weight", {48, 24}}, {"up.bias", {48}}, {"down.weight", {24, 48}}, {"down.bias", {24}}},
      [](const at::Tensor& x, const Weights& w) {
        at::Tensor h;
        {
          const trace::ModuleScope scope("up", "Linear");
          h = at::gelu(at::linear(x, w.at("up.weight"), w.at("up.bias")));
        }
        const trace::ModuleScope scope("down", "Linear");
        return x + at::linear(h, w.at("down.weight"), w.at("down.bias"));
      });
  const auto run = [&](std::vector<tensor::PinRule> pins, int parts = 2) {
    return test::expect_same(graph, {{"batch", 3}}, parts, true, std::move(pins));
  };
  EXPECT_EQ(run({}).shards.at("up.weight").dim, 0);
  const tensor::Sharded reverse = run({{"up", Pin::rowwise}, {"down", Pin::colwise}}, 3);
  EXPECT_EQ(reverse.shards.at("up.weight").dim, 1);
  EXPECT_EQ(reverse.shards.at("down.weight").dim, 0);
  EXPECT_EQ(reverse.shards.at("down.bias").dim, 0);
  EXPECT_EQ(reverse.shards.count("up.bias"), 0U);
  EXPECT_EQ(run({{"*", Pin::replicate}}).shards.size(), 0U);
  EXPECT_EQ(run({{"up", Pin::colwise}, {"down", Pin::colwise}}).shards.size(), 4U);
  tensor::PinRule gathered{"up", Pin::colwise};
  gathered.gather_output = true;
  const tensor::Sharded whole = run({gathered, {"down", Pin::rowwise, false, false}});
  EXPECT_EQ(test::count(whole, "all_gather", false), 1);
  EXPECT_EQ(whole.shards.at("down.weight").dim, 1);
  EXPECT_EQ(run({{"down", Pin::replicate}}).replicated.at("down.weight"), "the plan given keeps it whole");
}

TEST(Programs, PlansThatCannotBe) {
  const Graph graph = fused_attention();
  const auto shard = [&](const char* pattern, Pin pin, int parts) {
    tensor::ShardOptions options;
    options.parts = parts;
    options.pins = {{pattern, pin}};
    tensor::shard(graph, options);
  };
  test::expect_error(ErrorCode::usage, "--tp-plan: \"output\" matches no parameter of the model", [&] {
    shard("output", Pin::colwise, 2);
  });
  test::expect_error(
      ErrorCode::usage, "--tp-plan: \"out\" divides dimension 1 of out.weight, which has 24 elements, into 32",
      [&] { shard("out", Pin::rowwise, 32); });
}

TEST(Programs, Patterns) {
  EXPECT_TRUE(tensor::matches("model.layers.*.mlp.down_proj", "model.layers.12.mlp.down_proj"));
  EXPECT_FALSE(tensor::matches("model.layers.*.mlp.down_proj", "model.layers.12.mlp.down_proj.weight"));
  EXPECT_FALSE(tensor::matches("model.layers.*", "model.layers.1.mlp"));
  EXPECT_TRUE(tensor::matches("*.*", "a.b"));
  EXPECT_FALSE(tensor::matches("*", "a.b"));
}

}  // namespace
}  // namespace shardpipe
