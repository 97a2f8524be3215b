// Whole models of torch::nn: outputs, states and gradients are the eager module's bits; names, paths, opaque code,
// refusals.
#include "frontend/trace/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/functional.h>
#include <torch/nn/modules.h>

#include "frontend/trace/module_replay.h"
#include "frontend/trace/module_scope.h"
#include "frontend/trace/opaque.h"
#include "support/errors.h"

namespace shardpipe::trace {
namespace {

using graph::Size;
using graph::ValueKind;
using test::expect_error;
using test::expect_module_replays;
using test::path_of;
using test::Tensors;
using test::unary;
namespace nn = torch::nn;
namespace F = torch::nn::functional;

const Size kBatch = Size::symbol("batch");
const Size kSeq = Size::symbol("seq");
const std::vector<graph::Dimensions> kSizes = {{{"batch", 2}, {"seq", 12}}, {{"batch", 3}, {"seq", 5}}};
const std::vector<graph::Dimensions> kBatches = {{{"batch", 2}}, {{"batch", 9}}};

const graph::Value& value_of(const graph::Graph& graph, const std::string& name) {
  return graph.values.at(static_cast<size_t>(graph.find(name)));
}

struct BlockImpl : nn::Module {
  BlockImpl(int64_t in, int64_t out, int64_t stride) {
    conv1 = register_module("conv1", nn::Conv2d(nn::Conv2dOptions(in, out, 3).stride(stride).padding(1).bias(false)));
    bn1 = register_module("bn1", nn::BatchNorm2d(out));
    conv2 = register_module("conv2", nn::Conv2d(nn::Conv2dOptions(out, out, 3).padding(1).bias(false)));
    bn2 = register_module("bn2", nn::BatchNorm2d(out));
    if (stride != 1) {
      downsample = register_module(
          "downsample",
          nn::Sequential(nn::Conv2d(nn::Conv2dOptions(in, out, 1).stride(stride).bias(false)), nn::BatchNorm2d(out)));
    }
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = torch::relu(bn1->forward(conv1->forward(x)));
    y = bn2->forward(conv2->forward(y));
    return torch::relu(y + (downsample.is_empty() ? x : downsample->forward(x)));
  }
  nn::Conv2d conv1 = nullptr, conv2 = nullptr;
  nn::BatchNorm2d bn1 = nullptr, bn2 = nullptr;
  nn::Sequential downsample = nullptr;
};
TORCH_MODULE(Block);

struct ResNetImpl : nn::Module {
  ResNetImpl() {
    stem = register_module("stem", nn::Conv2d(nn::Conv2dOptions(3, 4, 3).padding(1)));
    layer1 = register_module("layer1", nn::Sequential(Block(4, 4, 1), Block(4, 4, 1)));
    layer2 = register_module("layer2", nn::Sequential(Block(4, 8, 2), Block(8, 8, 1)));
    fc = register_module("fc", nn::Linear(8, 5));
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = torch::max_pool2d(torch::relu(stem->forward(x)), 2);
    y = layer2->forward(layer1->forward(y));
    return fc->forward(torch::flatten(torch::adaptive_avg_pool2d(y, {1, 1}), 1));
  }
  nn::Conv2d stem = nullptr;
  nn::Sequential layer1 = nullptr, layer2 = nullptr;
  nn::Linear fc = nullptr;
};

TEST(TraceModule, ResNetInTrainAndEval) {
  const auto net = std::make_shared<ResNetImpl>();
  const auto signature = unary<ResNetImpl>({kBatch, 3, 16, 16});
  net->train();
  const auto train = expect_module_replays(net, signature, kBatches);
  EXPECT_EQ(value_of(train.graph, "layer1.0.bn1.running_mean").kind, ValueKind::state);
  EXPECT_EQ(value_of(train.graph, "layer1.0.bn1.running_mean").state, graph::StateKind::shared);
  EXPECT_EQ(value_of(train.graph, "layer1.0.bn1.num_batches_tracked").kind, ValueKind::state);
  EXPECT_EQ(value_of(train.graph, "layer1.0.bn1.num_batches_tracked").dtype, at::kLong);
  EXPECT_EQ(train.tensors("layer1.0.bn1.num_batches_tracked").item<int64_t>(), 2);
  net->eval();
  const graph::Graph graph = expect_module_replays(net, signature, kBatches).graph;
  EXPECT_EQ(value_of(graph, "layer1.0.bn1.running_mean").kind, ValueKind::buffer);

  EXPECT_EQ(graph.modules.at("layer1"), "Sequential");
  EXPECT_EQ(graph.modules.at("layer1.1"), "Block");
  EXPECT_EQ(graph.modules.at("layer2.0.downsample.1"), "BatchNorm2d");
  EXPECT_EQ(path_of(graph, "aten::conv2d", 0), "stem");
  EXPECT_EQ(path_of(graph, "aten::relu", 0), "");
  EXPECT_EQ(path_of(graph, "aten::max_pool2d"), "");
  EXPECT_EQ(path_of(graph, "aten::conv2d", 1), "layer1.0.conv1");
  EXPECT_EQ(path_of(graph, "aten::batch_norm", 0), "layer1.0.bn1");
  EXPECT_EQ(path_of(graph, "aten::relu", 1), "layer1.0");
  const std::vector<std::string> blocks = {"layer1.0", "layer1.1", "layer2.0", "layer2.1"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(path_of(graph, "aten::add.Tensor", i), blocks[i]);
    EXPECT_EQ(path_of(graph, "aten::relu", 2 * i + 2), blocks[i]);
  }
  EXPECT_EQ(path_of(graph, "aten::adaptive_avg_pool2d"), "");
  EXPECT_EQ(path_of(graph, "aten::linear"), "fc");
}

struct RmsNormImpl : nn::Module {
  explicit RmsNormImpl(int64_t width) { weight = register_parameter("weight", torch::ones({width})); }
  at::Tensor forward(const at::Tensor& x) { return x * torch::rsqrt(x.pow(2).mean(-1, true) + 1e-6) * weight; }
  at::Tensor weight;
};
TORCH_MODULE(RmsNorm);

// A pre-norm decoder with its own attention, written as users do: no scopes.
struct DecoderLayerImpl : nn::Module {
  DecoderLayerImpl() {
    norm1 = register_module("norm1", RmsNorm(16));
    qkv = register_module("qkv", nn::Linear(16, 48));
    out = register_module("out", nn::Linear(16, 16));
    norm2 = register_module("norm2", RmsNorm(16));
    mlp = register_module("mlp", nn::Sequential(nn::Linear(16, 32), nn::GELU(), nn::Linear(32, 16), nn::Dropout(0.1)));
  }
  at::Tensor forward(at::Tensor x, const at::Tensor& mask) {
    const auto batch = x.size(0);
    const auto seq = x.size(1);
    const auto parts = qkv->forward(norm1->forward(x)).view({batch, seq, 3, 2, 8}).permute({2, 0, 3, 1, 4}).unbind(0);
    const at::Tensor scores = torch::matmul(parts[0], parts[1].transpose(2, 3)) / std::sqrt(8.0) + mask;
    const at::Tensor mixed = torch::matmul(torch::softmax(scores, -1), parts[2]);
    x = x + out->forward(mixed.transpose(1, 2).reshape({batch, seq, 16}));
    return x + mlp->forward(norm2->forward(x));
  }
  RmsNorm norm1 = nullptr, norm2 = nullptr;
  nn::Linear qkv = nullptr, out = nullptr;
  nn::Sequential mlp = nullptr;
};
TORCH_MODULE(DecoderLayer);

struct Head : nn::Module {
  explicit Head(const at::Tensor& shared) { weight = register_parameter("weight", shared); }
  at::Tensor forward(const at::Tensor& x) { return F::linear(x, weight); }
  at::Tensor weight;
};

struct DecoderImpl : nn::Module {
  DecoderImpl() {
    embed = register_module("embed", nn::Embedding(5, 16));
    positions = register_module("positions", nn::Embedding(64, 16));
    layers = register_module("layers", nn::ModuleList());
    for (int i = 0; i < 3; ++i) {
      layers->push_back(DecoderLayer());
    }
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({16})));
    head = register_module("head", std::make_shared<Head>(embed->weight));
  }
  at::Tensor forward(const at::Tensor& ids) {
    const auto seq = ids.size(1);
    const at::Tensor mask = torch::full({seq, seq}, -1e9).triu(1);
    at::Tensor x = embed->forward(ids);
    x = x + positions->forward(torch::arange(seq, torch::kLong));
    for (const auto& layer : *layers) {
      x = layer->as<DecoderLayer>()->forward(x, mask);
    }
    return head->forward(norm->forward(x));
  }
  nn::Embedding embed = nullptr, positions = nullptr;
  nn::ModuleList layers = nullptr;
  nn::LayerNorm norm = nullptr;
  std::shared_ptr<Head> head;
};

TEST(TraceModule, DecoderWithTiedEmbedding) {
  const auto net = std::make_shared<DecoderImpl>();
  for (const bool train : {true, false}) {
    net->train(train);
    const graph::Graph graph = expect_module_replays(net, unary<DecoderImpl>({kBatch, kSeq}, at::kLong), kSizes).graph;
    EXPECT_EQ(graph.find("embed.weight"), graph.find("head.weight"));
    EXPECT_EQ(value_of(graph, "embed.weight").tied_names, std::vector<std::string>{"head.weight"});
    EXPECT_EQ(graph.modules.at("layers.1"), "DecoderLayer");
    EXPECT_EQ(path_of(graph, "aten::embedding", 0), "embed");
    EXPECT_EQ(path_of(graph, "aten::embedding", 1), "positions");
    EXPECT_EQ(path_of(graph, "aten::layer_norm"), "norm");
    EXPECT_EQ(path_of(graph, "aten::triu"), "");
    size_t linear = 0;
    std::string last_path = "";
    std::vector<std::string> order;
    for (const graph::Node& node : graph.nodes) {
      linear += node.op_name() == "aten::linear" ? 1 : 0;
      const std::string layer = node.module.substr(0, 8);
      if (layer.starts_with("layers.") && (order.empty() || order.back() != layer)) {
        order.push_back(layer);
      }
    }
    EXPECT_EQ(linear, 3 * 4 + 1u);
    EXPECT_EQ(order, (std::vector<std::string>{"layers.0", "layers.1", "layers.2"}));  // each in one piece
    EXPECT_EQ(path_of(graph, "aten::linear", 12), "head");
    for (size_t i = 0; i < 3; ++i) {
      const std::string layer = "layers." + std::to_string(i);
      EXPECT_EQ(path_of(graph, "aten::pow.Tensor_Scalar", 2 * i), layer);
      EXPECT_EQ(path_of(graph, "aten::softmax.int", i), layer);
      EXPECT_EQ(path_of(graph, "aten::gelu", i), layer + ".mlp.1");
      EXPECT_EQ(path_of(graph, "aten::linear", 4 * i), layer + ".qkv");
      EXPECT_EQ(path_of(graph, "aten::linear", 4 * i + 2), layer + ".mlp.0");
    }
    // Nothing between the last node of a layer and the first of the next is anyone else's.
    bool begun = false;
    for (const graph::Node& node : graph.nodes) {
      begun = begun || node.module.starts_with("layers.");
      if (node.op_name() == "aten::layer_norm") {
        break;
      }
      if (begun && node.op_name() != "aten::sym_size.int" && node.op) {
        EXPECT_TRUE(node.module.starts_with("layers.")) << node.op_name() << " in " << node.module;
      }
    }
  }
}

TEST(TraceModule, TorchTransformer) {
  nn::Transformer net(nn::TransformerOptions(16, 2).num_encoder_layers(2).num_decoder_layers(2).dim_feedforward(24));
  const ModuleSignature signature = {
      {{"source", at::kFloat, {kSeq, kBatch, 16}}, {"target", at::kFloat, {Size::symbol("length"), kBatch, 16}}},
      [](nn::Module& m, const Tensors& in) -> NamedOutputs {
        auto& module = dynamic_cast<nn::TransformerImpl&>(m);
        const at::Tensor mask = nn::TransformerImpl::generate_square_subsequent_mask(in[1].size(0));
        return {{"y", module.forward(in[0], in[1], {}, mask)}};
      }};
  const std::vector<graph::Dimensions> sizes = {
      {{"seq", 5}, {"batch", 2}, {"length", 3}}, {{"seq", 9}, {"batch", 1}, {"length", 30}}};
  for (const bool train : {true, false}) {
    net->train(train);
    const graph::Graph graph = expect_module_replays(net.ptr(), signature, sizes).graph;
    EXPECT_EQ(graph.modules.at("encoder.layers.0"), "TransformerEncoderLayer");
    EXPECT_EQ(graph.modules.at("decoder.layers.1.self_attn.out_proj"), "Linear");
    EXPECT_EQ(path_of(graph, "aten::softmax.int"), "encoder.layers.0.self_attn");
    EXPECT_EQ(path_of(graph, "aten::layer_norm"), "encoder.layers.0.norm1");
    const auto ops = test::op_names(graph);
    EXPECT_EQ(std::count(ops.begin(), ops.end(), "aten::t"), 0);
  }
}

// A layer that is used twice under two names, and a scope that names what parameters cannot.
struct SharedImpl : nn::Module {
  SharedImpl() {
    nn::Linear shared(6, 6);
    first = register_module("first", shared);
    second = register_module("second", shared);
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = first->forward(x);
    {
      const ModuleScope scope("between", "Activation");
      y = torch::tanh(y);
    }
    return second->forward(y);
  }
  nn::Linear first = nullptr, second = nullptr;
};

TEST(TraceModule, SharedLayersAndScopes) {
  const graph::Graph graph =
      expect_module_replays(std::make_shared<SharedImpl>(), unary<SharedImpl>({kBatch, 6}), kBatches).graph;
  EXPECT_EQ(value_of(graph, "first.weight").tied_names, std::vector<std::string>{"second.weight"});
  EXPECT_EQ(path_of(graph, "aten::linear", 0), "first");
  EXPECT_EQ(path_of(graph, "aten::tanh"), "between");
  EXPECT_EQ(path_of(graph, "aten::linear", 1), "second");
  EXPECT_EQ(graph.modules.at("between"), "Activation");
}

// Rows go where the largest score says: no graph can hold that.
struct RouterImpl : nn::Module {
  RouterImpl() {
    score = register_module("score", nn::Linear(6, 2));
    left = register_parameter("left", torch::randn({6, 6}));
    right = register_parameter("right", torch::randn({6, 6}));
  }
  at::Tensor forward(const at::Tensor& x) {
    const auto route = [](const Tensors& in) {
      Tensors rows;
      for (int64_t i = 0; i < in[0].size(0); ++i) {
        const bool to_left = in[1][i][0].item<float>() > in[1][i][1].item<float>();
        rows.push_back(torch::mv(in[to_left ? 2 : 3], in[0][i]) * torch::sigmoid(in[1][i].max()));
      }
      return Tensors{torch::stack(rows), in[0]};
    };
    const Tensors routed = opaque("route", route, {x, score->forward(x), left, right});
    return opaque("double", [](const Tensors& in) { return Tensors{in[0] * 2}; }, {routed[0] + routed[1]})[0];
  }
  nn::Linear score = nullptr;
  at::Tensor left, right;
};

TEST(TraceModule, OpaqueCodeIsOneNode) {
  const auto one = std::make_shared<RouterImpl>();
  const auto other = std::make_shared<RouterImpl>();
  const auto traced = expect_module_replays(one, unary<RouterImpl>({kBatch, 6}), kBatches);
  EXPECT_EQ(
      test::op_names(traced.graph),
      (std::vector<std::string>{"aten::linear", "shardpipe::opaque", "aten::add.Tensor", "shardpipe::opaque"}));
  EXPECT_EQ(traced.graph.nodes[1].results.size(), 2u);
  // Another model of the same names has functions of its own.
  const auto second = expect_module_replays(other, unary<RouterImpl>({kBatch, 6}), kBatches);
  EXPECT_NE(
      traced.graph.nodes[1].arguments[1].as_constant()->toInt(),
      second.graph.nodes[1].arguments[1].as_constant()->toInt());
  test::expect_same_as_eager(traced, *one, unary<RouterImpl>({kBatch, 6}), {{"batch", 4}});
}

// A module of one parameter "inner.w" [8, 8] and a buffer "inner.b"; a free function is its forward.
struct InnerImpl : nn::Module {
  InnerImpl() {
    w = register_parameter("w", torch::randn({8, 8}));
    b = register_buffer("b", torch::zeros({8}));
  }
  at::Tensor w, b;
};
struct OuterImpl : nn::Module {
  OuterImpl() { inner = register_module("inner", std::make_shared<InnerImpl>()); }
  std::shared_ptr<InnerImpl> inner;
};
using Forward = std::function<at::Tensor(InnerImpl&, const at::Tensor& x)>;

TracedModule trace_outer(const Forward& forward, const std::string& input = "x") {
  return trace_module(
      std::make_shared<OuterImpl>(),
      {{{input, at::kFloat, {kBatch, kSeq, 8}}}, [&](nn::Module& module, const Tensors& in) -> NamedOutputs {
         return {{"y", forward(*dynamic_cast<OuterImpl&>(module).inner, in[0])}};
       }});
}

void expect_refused(const std::string& message, const Forward& forward) {
  expect_error(ErrorCode::usage, message, [&] { trace_outer(forward); });
}

TEST(TraceModule, RefusalsNameTheModule) {
  expect_refused(
      "operator aten::item after \"inner\" reads the values of a tensor, which have none while a model is traced",
      [](auto& m, auto& x) { return torch::matmul(x, m.w) * m.b.sum().template item<float>(); });
  expect_refused(
      "control flow depends on the sizes of the inputs, at operator aten::relu after \"inner\"", [](auto& m, auto& x) {
        const at::Tensor y = torch::matmul(x, m.w);
        return x.size(0) % 2 == 0 ? y.sigmoid() : y.relu();
      });
  expect_refused("an integer is no polynomial of the named dimensions (the traced runs give ", [](auto& m, auto& x) {
    return torch::matmul(x, m.w).narrow(1, 0, x.size(1) / 2);
  });
  expect_refused(
      "operator aten::add_.Scalar in \"\" writes to \"x\", which is no state of the model",
      [](auto&, auto& x) { return x.add_(1); });
  expect_refused("operator aten::zero_ in \"\" writes to \"inner.w\", ", [](auto& m, auto& x) {
    const torch::NoGradGuard no_grad;
    m.w.zero_();
    return x;
  });
  expect_refused(
      "the model failed while it was traced, after operator aten::matmul after \"inner\": boom", [](auto& m, auto& x) {
        torch::matmul(x, m.w);
        throw std::runtime_error("boom");
        return x;
      });
  expect_refused(
      "output \"y\" of the traced program is not a tensor it computed", [](auto&, auto&) { return at::Tensor(); });
  const at::Tensor forgotten = torch::randn({8, 8}).requires_grad_();
  expect_refused(
      "a tensor of shape [8, 8] used after \"inner\" requires a gradient but is no registered parameter of the model; "
      "hint: register it with register_parameter(), or detach it",
      [&](auto& m, auto& x) { return torch::matmul(torch::matmul(x, m.w), forgotten); });
  expect_error(ErrorCode::usage, "input \"inner.w\" is named like a tensor of the module", [] {
    trace_outer([](auto& m, auto& x) { return torch::matmul(x, m.w); }, "inner.w");
  });
  expect_error(ErrorCode::usage, "there is no module to trace", [] { trace_module(nullptr, {}); });
  nn::MultiheadAttention attention(16, 2);
  expect_error(ErrorCode::usage, "operator aten::equal in \"\" reads the values of a tensor", [&] {
    trace_module(
        attention.ptr(), {{{"q", at::kFloat, {kSeq, kBatch, 16}}, {"k", at::kFloat, {kSeq, kBatch, 16}}},
                          [](nn::Module& m, const Tensors& in) -> NamedOutputs {
                            auto& module = dynamic_cast<nn::MultiheadAttentionImpl&>(m);
                            return {{"y", std::get<0>(module.forward(in[0], in[1], in[1]))}};
                          }});
  });
}

TEST(TraceModule, RefusalsOfOpaqueCode) {
  const auto call = [](const OpaqueFunction& f) {
    return [&f](InnerImpl& m, const at::Tensor& x) { return opaque("f", f, {x, m.w})[0]; };
  };
  const OpaqueFunction throws = [](const Tensors&) -> Tensors { throw std::runtime_error("boom"); };
  expect_refused(
      "opaque function \"f\" failed on zeros, on which it is called while a model is traced: boom; hint: ",
      call(throws));
  const OpaqueFunction undefined = [](const Tensors&) { return Tensors{at::Tensor()}; };
  expect_refused("opaque function \"f\" returns an undefined tensor", call(undefined));
  const OpaqueFunction writes = [](const Tensors& in) { return Tensors{in[0].add_(1)}; };
  expect_refused("opaque function \"f\" writes to its input 0; it has to return a new tensor", call(writes));
  torch::jit::Stack stack = {std::string("f"), int64_t{1000}, std::vector<at::Tensor>{at::ones({1})}};
  expect_error(
      ErrorCode::usage,
      "there is no opaque function \"f\" number 1000 in this process; hint: every rank has to trace the same modules "
      "in "
      "the same order",
      [&] { graph::find_operator("shardpipe::opaque").callBoxed(&stack); });
}

TEST(TraceModule, BuffersThatForwardWritesAreStates) {
  const auto traced = trace_outer([](auto& m, auto& x) {
    m.b.narrow(0, 0, 4).add_(1);
    return torch::matmul(x, m.w) + m.b;
  });
  EXPECT_EQ(value_of(traced.graph, "inner.b").kind, ValueKind::state);
  EXPECT_FALSE(value_of(traced.graph, "inner.b").content.defined());
  EXPECT_TRUE(traced.tensors("inner.b").equal(at::zeros({8})));  // the trace did not write
  expect_error(ErrorCode::usage, "the module has no parameter or buffer \"b\"", [&] { traced.tensors("b"); });
}

struct OnMetaImpl : nn::Module {
  OnMetaImpl() {
    first = register_module("first", std::make_shared<Head>(at::empty({6, 6}, at::kMeta)));
    second = register_module("second", std::make_shared<Head>(first->weight));
    real = register_buffer("real", torch::randn({6}));
  }
  at::Tensor forward(const at::Tensor& x) { return second->forward(first->forward(x)) + real; }
  std::shared_ptr<Head> first, second;
  at::Tensor real;
};

TEST(TraceModule, InitialisersFillWhatIsOnMeta) {
  const auto module = std::make_shared<OnMetaImpl>();
  const auto signature = unary<OnMetaImpl>({kBatch, 6});
  const auto bare = trace_module(module, signature);
  expect_error(
      ErrorCode::usage,
      "\"first.weight\" of the module is on meta and has no content; hint: give an initialiser, or build the module "
      "with "
      "a factory",
      [&] { bare.tensors("first.weight"); });
  std::vector<std::string> asked;
  const auto traced = trace_module(
      module, signature,
      [&](const std::string& name, at::Tensor& tensor) {
        asked.push_back(name);
        tensor.normal_();
      },
      5);
  test::expect_same_bits(traced.tensors("first.weight"), traced.tensors("second.weight"), "tied");
  test::expect_same_bits(traced.tensors("real"), module->real, "real");
  EXPECT_EQ(asked, (std::vector<std::string>{"first.weight", "first.weight"}));
  const auto wrong = trace_module(
      module, signature, [](const std::string&, at::Tensor& tensor) { tensor = at::zeros({3}); }, 5);
  expect_error(
      ErrorCode::usage, "the initialiser replaced \"first.weight\" by a tensor of another shape or dtype",
      [&] { wrong.tensors("second.weight"); });
}

TEST(TraceModule, DeferredModulesRunAsTheirReplayedWeightsDo) {
  const DeferredModule deferred([] { return std::make_shared<DecoderImpl>(); });
  const auto signature = unary<DecoderImpl>({kBatch, kSeq}, at::kLong);
  const auto traced = trace_module(deferred, signature, 11);
  DecoderImpl eager;
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : test::tensors_of(eager)) {
    tensor.copy_(traced.tensors(name));
  }
  eager.eval();
  deferred.module()->eval();
  test::expect_same_as_eager(trace_module(deferred, signature, 11), eager, signature, kSizes[0]);
}

}  // namespace
}  // namespace shardpipe::trace
