// Modules of torch::nn as their users write them: they record views, matmul and in-place additions, not whole
// operators.
#include <gtest/gtest.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include "frontend/trace/replay.h"

namespace shardpipe::trace {
namespace {

using graph::Size;
using test::Tensors;

struct NetImpl : torch::nn::Module {
  NetImpl() {
    embed = register_module("embed", torch::nn::Embedding(5, 16));
    conv = register_module("conv", torch::nn::Conv1d(torch::nn::Conv1dOptions(16, 16, 3).padding(1)));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({16})));
    mlp = register_module("mlp", torch::nn::Sequential(torch::nn::Linear(16, 64), torch::nn::Linear(64, 16)));
    head = register_module("head", torch::nn::Linear(torch::nn::LinearOptions(16, 5).bias(false)));
  }
  at::Tensor forward(const at::Tensor& ids) {
    at::Tensor x = embed->forward(ids);
    x = x + conv->forward(x.transpose(1, 2)).transpose(1, 2);
    x = x + mlp->forward(norm->forward(x));
    return head->forward(x.view({ids.size(0) * ids.size(1), 16}));
  }
  torch::nn::Embedding embed = nullptr;
  torch::nn::Conv1d conv = nullptr;
  torch::nn::LayerNorm norm = nullptr;
  torch::nn::Sequential mlp = nullptr;
  torch::nn::Linear head = nullptr;
};

TEST(NnModules, ReplayBitwiseWithTheirOwnParameters) {
  NetImpl net;
  const Size batch = Size::symbol("batch");
  const Size seq = Size::symbol("seq");
  Program program{{{"ids", at::kLong, {batch, seq}}}, {}, {}, {}};
  test::Model model{program.inputs, {}, {}, {}};
  for (const auto& parameter : net.named_parameters()) {
    program.tensors.push_back({parameter.key(), parameter.value()});
    model.weights[parameter.key()] = parameter.value();
  }
  program.forward = [&](const Tensors& in, const Tensors&) -> NamedOutputs { return {{"logits", net.forward(in[0])}}; };
  model.forward = [&](const test::Weights&, const Tensors& in, const Tensors&) -> NamedOutputs {
    return {{"logits", net.forward(in[0])}};
  };
  const graph::Graph graph = trace(program);
  EXPECT_EQ(graph.used_tensors().size(), net.parameters().size());
  test::expect_replay(graph, model, {{"batch", 2}, {"seq", 5}});
  test::expect_replay(graph, model, {{"batch", 1}, {"seq", 1}});
  for (const at::Tensor& parameter : net.parameters()) {
    EXPECT_TRUE(parameter.is_cpu());
  }
}

}  // namespace
}  // namespace shardpipe::trace
