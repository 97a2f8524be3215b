// Programs of every kind, traced and executed at other sizes than the probes'.
#include "frontend/trace/trace.h"
#include "support/peak_memory.h"

#include <gmock/gmock.h>

#include <fstream>

#include "frontend/trace/module_scope.h"
#include "frontend/trace/replay.h"
#include "support/errors.h"

namespace shardpipe::trace {
namespace {

using graph::Dimensions;
using graph::Graph;
using graph::Size;
using test::expect_replays;
using test::Model;
using test::Tensors;
using test::Weights;

const Size kBatch = Size::symbol("batch");
const Size kSeq = Size::symbol("seq");

std::vector<Dimensions> batch_and_seq() {
  return {
      {{"batch", 1}, {"seq", 1}},
      {{"batch", 3}, {"seq", 5}},
      {{"batch", 2}, {"seq", 64}},
      {{"batch", 7}, {"seq", 13}},
      {{"batch", 0}, {"seq", 4}}};
}

TEST(Trace, Mlp) {
  const Model model{
      {{"x", at::kFloat, {kBatch, 16}}},
      {},
      {{"up.weight", at::randn({32, 16})}, {"up.bias", at::randn({32})}, {"down.weight", at::randn({16, 32})}},
      [](const Weights& w, const Tensors& in, const Tensors&) -> NamedOutputs {
        const ModuleScope scope("mlp", "Mlp");
        at::Tensor h;
        {
          const ModuleScope up("up", "Linear");
          h = at::linear(in[0], w.at("up.weight"), w.at("up.bias"));
        }
        h = at::gelu(h, "tanh");
        return {{"y", 2.0 - at::linear(h, w.at("down.weight")) * 0.5 + in[0]}, {"h", h}};
      }};
  const Graph graph = expect_replays(model, {{{"batch", 1}}, {{"batch", 5}}, {{"batch", 300}}, {{"batch", 0}}});
  EXPECT_EQ(
      test::op_names(graph), (std::vector<std::string>{
                                 "aten::linear", "aten::gelu", "aten::linear", "aten::mul.Scalar", "aten::empty_like",
                                 "aten::fill_.Scalar", "aten::sub_.Tensor", "aten::add.Tensor"}));
  EXPECT_EQ(graph.nodes[0].module, "mlp.up");
  EXPECT_EQ(graph.nodes[1].module, "mlp");
  EXPECT_EQ(graph.modules, (std::map<std::string, std::string>{{"mlp", "Mlp"}, {"mlp.up", "Linear"}}));
  EXPECT_EQ(graph::to_string(*graph.values[static_cast<size_t>(graph.outputs[1].value)].shape), "[batch, 32]");
}

TEST(Trace, AttentionBlock) {
  const Model model{
      {{"ids", at::kLong, {kBatch, kSeq}}},
      {},
      {{"embed", at::randn({5, 32})},
       {"norm.w", at::randn({32})},
       {"norm.b", at::randn({32})},
       {"qkv", at::randn({96, 32})},
       {"out", at::randn({32, 32})}},
      [](const Weights& w, const Tensors& in, const Tensors&) -> NamedOutputs {
        const int64_t batch = in[0].size(0);
        const int64_t seq = in[0].size(1);
        at::Tensor x = at::embedding(w.at("embed"), in[0]);
        const at::Tensor h = at::layer_norm(x, {32}, w.at("norm.w"), w.at("norm.b"));
        const Tensors parts = at::linear(h, w.at("qkv")).view({batch, seq, 3, 4, 8}).unbind(2);
        const at::Tensor q = parts[0].transpose(1, 2);
        const at::Tensor k = parts[1].transpose(1, 2);
        const at::Tensor v = parts[2].transpose(1, 2);
        const at::Tensor a = at::scaled_dot_product_attention(q, k, v, {}, 0.0, true);
        const at::Tensor mask = at::ones({seq, seq}, at::kBool).tril();
        const at::Tensor scores = at::matmul(q, k.transpose(2, 3)).masked_fill(mask.logical_not(), -INFINITY);
        const at::Tensor b = at::matmul(at::softmax(scores, -1), v);
        const at::Tensor merged = (a + b).transpose(1, 2).reshape({batch * seq, -1});
        x = x + at::linear(merged, w.at("out")).view({batch, seq, 32});
        return {{"x", x}, {"last", x.index({at::indexing::Slice(), -1})}};
      }};
  auto sizes = batch_and_seq();
  sizes.pop_back();  // LibTorch's attention refuses an empty batch
  const Graph graph = expect_replays(model, sizes);
  const auto ops = test::op_names(graph);
  for (const char* whole :
       {"aten::embedding", "aten::layer_norm", "aten::scaled_dot_product_attention", "aten::unbind.int"}) {
    EXPECT_THAT(ops, testing::Contains(whole));
  }
}

TEST(Trace, Convolutions) {
  const Model model{
      {{"image", at::kFloat, {kBatch, 3, 12, 12}}, {"wave", at::kFloat, {kBatch, 4, kSeq}}},
      {},
      {{"c2", at::randn({8, 3, 3, 3})},
       {"b2", at::randn({8})},
       {"c1", at::randn({6, 2, 3})},
       {"head", at::randn({10, 288})}},
      [](const Weights& w, const Tensors& in, const Tensors&) -> NamedOutputs {
        at::Tensor x = at::relu(at::conv2d(in[0], w.at("c2"), w.at("b2"), {1, 1}, {1, 1}));
        x = at::max_pool2d(x, {2, 2});
        x = at::linear(x.flatten(1), w.at("head"));
        return {{"image", x}, {"wave", at::conv1d(in[1], w.at("c1"), {}, 1, 1, 1, 2)}};
      }};
  expect_replays(model, {{{"batch", 2}, {"seq", 9}}, {{"batch", 5}, {"seq", 40}}});
}

TEST(Trace, InPlaceOperators) {
  const Model model{
      {{"x", at::kFloat, {kBatch, 4}}},
      {},
      {{"w", at::randn({4})}},
      [](const Weights& w, const Tensors& in, const Tensors&) -> NamedOutputs {
        at::Tensor x = in[0] + 1;
        at::Tensor first = x.narrow(1, 0, 2);
        x.mul_(w.at("w"));
        first.add_(x.narrow(1, 2, 2)).relu_();
        x.index_put_({at::indexing::Slice(), 3}, 5);
        at::Tensor out = at::empty_like(x);
        at::add_out(out, x, x);
        x.t_();
        return {{"x", x}, {"first", first}, {"out", out}};
      }};
  expect_replays(model, {{{"batch", 1}}, {{"batch", 6}}});
}

TEST(Trace, StatesAreWritten) {
  const Size slots = Size::symbol("slots");
  const Size capacity = Size::symbol("capacity");
  const Model model{
      {{"k", at::kFloat, {slots, kSeq, 8}}, {"rows", at::kLong, {slots}}},
      {{"cache", at::kFloat, {slots, capacity, 8}}, {"count", at::kLong, {1}}},
      {},
      [](const Weights&, const Tensors& in, const Tensors& states) -> NamedOutputs {
        states[0].narrow(1, 2, in[0].size(1)).copy_(in[0]);
        states[0].select(1, 0).index_copy_(0, at::arange(in[1].size(0)), in[0].select(1, 0));
        states[1].add_(in[0].size(0) * in[0].size(1));
        return {{"all", states[0].sum({0, 1})}, {"count", states[1] + 0}};
      }};
  const Graph graph =
      expect_replays(model, {{{"slots", 1}, {"seq", 1}, {"capacity", 5}}, {{"slots", 4}, {"seq", 6}, {"capacity", 8}}});
  EXPECT_EQ(graph.dimensions, (std::vector<std::string>{"slots", "seq", "capacity"}));
  EXPECT_EQ(graph.values[2].kind, graph::ValueKind::state);
  EXPECT_EQ(graph.values[2].state, graph::StateKind::per_sequence);
}

TEST(Trace, ListResults) {
  const Model model{
      {{"x", at::kFloat, {kBatch, 12}}}, {}, {}, [](const Weights&, const Tensors& in, const Tensors&) -> NamedOutputs {
        const Tensors chunks = in[0].chunk(3, 1);
        const Tensors parts = in[0].split_with_sizes({5, 7}, 1);
        const Tensors rows = in[0].t().unbind(0);
        const Tensors grids = at::meshgrid({chunks[0].select(1, 0), chunks[1].select(1, 0)}, "ij");
        return {
            {"cat", at::cat({chunks[2], parts[1], chunks[0]}, 1)},
            {"stack", at::stack({rows[11], rows[0]}, 1)},
            {"grid", grids[1] + grids[0]}};
      }};
  const Graph graph = expect_replays(model, {{{"batch", 1}}, {{"batch", 6}}});
  EXPECT_EQ(graph.nodes[0].op_name(), "aten::chunk");
  EXPECT_EQ(graph.nodes[0].results.size(), 3u);
}

TEST(Trace, FactoriesFollowSizesAndNameNoDevice) {
  const Model model{
      {{"x", at::kFloat, {kBatch, kSeq}}},
      {},
      {},
      [](const Weights&, const Tensors& in, const Tensors&) -> NamedOutputs {
        const int64_t batch = in[0].size(0);
        const int64_t seq = in[0].size(1);
        const auto on = at::TensorOptions(at::kFloat).device(in[0].device());
        const at::Tensor positions = at::arange(seq, on).unsqueeze(0).expand({batch, seq});
        at::Tensor y = in[0] * positions + at::zeros({batch, 1}, on) + at::full({seq}, 0.25, on);
        y = y + at::arange(1, 2 * seq, 2, on) + at::eye(batch, seq, on) + at::ones_like(in[0]);
        y = y.to(at::TensorOptions(at::kDouble)) + at::linspace(0, 1, seq, on);
        y = y.to(in[0].device(), at::kFloat) * at::scalar_tensor(3, on) + in[0].new_ones({batch, seq});
        return {{"y", y.to(at::kCPU, at::kHalf)}, {"mask", at::ones({seq, seq}, on).triu(1)}};
      }};
  const Graph graph = expect_replays(model, batch_and_seq());
  for (const graph::Node& node : graph.nodes) {
    for (const graph::Argument& argument : node.arguments) {
      EXPECT_FALSE(argument.as_constant() != nullptr && argument.as_constant()->isDevice()) << node.op_name();
    }
  }
}

TEST(Trace, SizesReadAsIntegers) {
  const Model model{
      {{"x", at::kFloat, {kBatch, kSeq, 6}}},
      {},
      {},
      [](const Weights&, const Tensors& in, const Tensors&) -> NamedOutputs {
        const int64_t batch = in[0].size(0);
        const int64_t seq = at::size(in[0], 1);  // goes through the dispatcher, unlike x.size()
        const at::Tensor flat = in[0].view({batch * seq, -1});
        const at::Tensor square = at::zeros({seq * seq, 2});
        const at::Tensor sum = at::zeros({batch + 2 * seq + 3});
        const at::Tensor mixed = at::zeros({batch * (seq + 1), 1});
        const at::Tensor cube = at::zeros({batch * seq * seq});
        const at::Tensor shifted = at::cat({in[0], in[0].narrow(1, 0, seq - 1)}, 1).reshape({(2 * seq - 1) * batch, 6});
        const at::Tensor scaled = in[0] * seq + in[0].numel();
        return {{"flat", flat}, {"square", square},   {"sum", sum},       {"mixed", mixed},
                {"cube", cube}, {"shifted", shifted}, {"scaled", scaled}, {"same", flat.view({batch, seq, 6})}};
      }};
  auto sizes = batch_and_seq();
  sizes.pop_back();  // -1 of no elements is ambiguous
  const Graph graph = expect_replays(model, sizes);
  const auto ops = test::op_names(graph);
  EXPECT_EQ(std::count(ops.begin(), ops.end(), "aten::sym_size.int"), 2);  // each dimension once
  EXPECT_THAT(ops, testing::Not(testing::Contains("aten::size.int")));
}

TEST(Trace, RunsOnlyAsOftenAsTheSizesNeed) {
  int64_t runs = 0;
  const auto count = [&](const std::function<at::Tensor(const at::Tensor&)>& f) {
    Program program{{{"x", at::kFloat, {kBatch, kSeq, Size::symbol("height"), Size::symbol("width")}}}, {}, {}, {}};
    program.forward = [&](const Tensors& in, const Tensors&) -> NamedOutputs {
      ++runs;
      return {{"y", f(in[0])}};
    };
    trace(program);
    return std::exchange(runs, 0);
  };
  // The base, each of four dimensions, all of them, twice.
  EXPECT_EQ(count([](const auto& x) { return x.relu(); }), 7);
  EXPECT_EQ(count([](const auto& x) { return x.narrow(1, 1, x.size(1) - 1) + 1; }), 7);
  EXPECT_EQ(count([](const auto& x) { return x.flatten(); }), 7);  // a product of all
  // batch * (seq + 1): another size of both, and both changed.
  EXPECT_EQ(count([](const auto& x) { return at::zeros({x.size(0) * (x.size(1) + 1)}); }), 10);
}

TEST(Trace, ExtentsThatAreNoPolynomialAreUnknown) {
  const Model model{
      {{"x", at::kFloat, {kSeq, 4}}}, {}, {}, [](const Weights&, const Tensors& in, const Tensors&) -> NamedOutputs {
        return {{"y", in[0].slice(0, 0, std::nullopt, 2) + 1}};
      }};
  const Graph graph = expect_replays(model, {{{"seq", 1}}, {{"seq", 8}}, {{"seq", 9}}});
  EXPECT_EQ(graph.values[static_cast<size_t>(graph.outputs[0].value)].shape, std::nullopt);
}

TEST(Trace, TiedParametersAreOne) {
  const at::Tensor embedding = at::randn({5, 8});
  Program program{{{"ids", at::kLong, {kSeq}}}, {}, {}, {}};
  const at::Tensor meta = at::empty({5, 8}, at::kMeta);
  program.tensors = {{"embed.weight", meta}, {"head.weight", meta}};
  program.forward = [&](const Tensors& in, const Tensors&) -> NamedOutputs {
    return {{"logits", at::linear(at::embedding(meta, in[0]), meta)}};
  };
  const Graph graph = trace(program);
  EXPECT_EQ(graph.find("embed.weight"), graph.find("head.weight"));
  EXPECT_EQ(
      graph.values[static_cast<size_t>(graph.find("embed.weight"))].tied_names,
      std::vector<std::string>{"head.weight"});
}

TEST(Trace, ConstantsFromOutsideBecomeBuffers) {
  const at::Tensor table = at::randn({3, 4});
  const at::Tensor frequencies = at::rand({4});
  Model model{
      {{"x", at::kFloat, {kSeq, 3}}}, {}, {}, [&](const Weights&, const Tensors& in, const Tensors&) -> NamedOutputs {
        const at::Tensor rotated = at::outer(at::arange(in[0].size(0), at::kFloat), frequencies);
        return {{"y", at::matmul(in[0], table) + rotated.cos() + table.sum()}};
      }};
  const Graph graph = expect_replays(model, {{{"seq", 1}}, {{"seq", 9}}});
  EXPECT_EQ(graph.find("constant.0") != graph::kNoValue && graph.find("constant.1") != graph::kNoValue, true);
  EXPECT_EQ(graph.find("constant.2"), graph::kNoValue);

  // A registered buffer with content keeps its name and is never read while tracing.
  Program program = test::program_of(model);
  program.tensors = {{"rotary.inv_freq", frequencies, graph::ValueKind::buffer}};
  const Graph named = trace(program);
  EXPECT_TRUE(named.values[static_cast<size_t>(named.find("rotary.inv_freq"))].content.equal(frequencies));
  EXPECT_EQ(named.values[static_cast<size_t>(named.find("rotary.inv_freq"))].kind, graph::ValueKind::buffer);
}

TEST(Trace, GradRegionsAreTheModelsOwn) {
  const Model model{
      {{"x", at::kFloat, {kBatch}}},
      {},
      {{"w", at::randn({1})}},
      [](const Weights& w, const Tensors& in, const Tensors&) -> NamedOutputs {
        const at::Tensor a = in[0] * w.at("w");
        at::Tensor b;
        {
          const at::NoGradGuard no_grad;
          b = a.sigmoid();
        }
        return {{"y", a * b}};
      }};
  const at::NoGradGuard inference;  // of whoever traces: no matter
  const Graph graph = trace(test::program_of(model));
  ASSERT_EQ(graph.nodes.size(), 3u);
  EXPECT_TRUE(graph.nodes[0].grad_enabled);
  EXPECT_FALSE(graph.nodes[1].grad_enabled);
  EXPECT_TRUE(graph.nodes[2].grad_enabled);
  EXPECT_FALSE(c10::GradMode::is_enabled());
}

// 102 GB of float32 weights; several operators of it have no kernel on meta.
TEST(Trace, AHundredGigabytesNeedNoMemory) {
  Program program{{{"ids", at::kLong, {kBatch, kSeq}}}, {}, {}, {}};
  const at::Tensor embed = at::empty({400'000, 16'384}, at::kMeta);
  program.tensors.push_back({"embed", embed});
  Tensors layers;
  for (int i = 0; i < 70; ++i) {
    layers.push_back(at::empty({16'384, 16'384}, at::kMeta));
    program.tensors.push_back({"layers." + std::to_string(i), layers.back()});
  }
  program.forward = [&](const Tensors& in, const Tensors&) -> NamedOutputs {
    at::Tensor x = at::embedding(embed, in[0]);
    for (const at::Tensor& w : layers) {
      x = x + at::linear(at::layer_norm(x, {16'384}), w);
    }
    const at::Tensor heads = x.view({in[0].size(0), in[0].size(1), 128, 128}).transpose(1, 2);
    x = at::scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2);
    return {{"logits", at::linear(x, embed)}};
  };
  const int64_t before = test::peak_kilobytes();
  const Graph graph = trace(program);
  EXPECT_EQ(graph.nodes.size(), 2 + 1 + 70 * 3 + 5u + 1);
  EXPECT_LT(test::peak_kilobytes() - before, 600'000);
}

TEST(Trace, AnExceptionLeavesNoStateBehind) {
  Program program{{{"x", at::kFloat, {kBatch}}}, {}, {}, {}};
  program.forward = [](const Tensors& in, const Tensors&) -> NamedOutputs {
    const ModuleScope scope("model", "Model");
    const at::NoGradGuard no_grad;
    at::relu(in[0]);
    throw std::runtime_error("boom\nmore");
  };
  for (int i = 0; i < 2; ++i) {
    test::expect_error(
        ErrorCode::usage, "the model failed while it was traced, after operator aten::relu in \"model\": boom",
        [&] { trace(program); });
    EXPECT_EQ(ModuleScope::current(), "");
    EXPECT_TRUE(c10::GradMode::is_enabled());
    EXPECT_TRUE(at::arange(3).is_cpu());  // nothing is redirected any more
    EXPECT_EQ(at::ones({2}).sum().item<float>(), 2);
  }
  program.forward = [](const Tensors&, const Tensors&) -> NamedOutputs { throw std::runtime_error("early"); };
  test::expect_error(ErrorCode::usage, "while it was traced, at its start: early", [&] { trace(program); });
  program.forward = [](const Tensors&, const Tensors&) -> NamedOutputs { throw Error(ErrorCode::input, "its own"); };
  test::expect_error(ErrorCode::input, "its own", [&] { trace(program); });
}

}  // namespace
}  // namespace shardpipe::trace
