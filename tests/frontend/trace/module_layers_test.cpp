// Each layer of torch::nn, traced, gives what it gives itself: outputs, states and gradients, bit by bit, at sizes that
// the trace did not see.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/functional.h>
#include <torch/nn/modules.h>

#include "frontend/trace/module_replay.h"

namespace shardpipe::trace {
namespace {

using graph::Size;
using test::expect_module_replays;
using test::Tensors;
using test::unary;
namespace nn = torch::nn;
namespace F = torch::nn::functional;

const Size kBatch = Size::symbol("batch");
const Size kSeq = Size::symbol("seq");
const std::vector<graph::Dimensions> kSizes = {{{"batch", 2}, {"seq", 12}}, {{"batch", 5}, {"seq", 33}}};
const std::vector<graph::Dimensions> kBatches = {{{"batch", 2}}, {{"batch", 9}}};

template <typename Holder>
void expect_layer(Holder layer, const graph::Shape& shape, const std::vector<graph::Dimensions>& sizes) {
  using Impl = typename Holder::Impl;
  SCOPED_TRACE(layer->name());
  for (const bool train : {true, false}) {
    layer->train(train);
    SCOPED_TRACE(train ? "train" : "eval");
    expect_module_replays(layer.ptr(), unary<Impl>(shape), sizes);
  }
}

TEST(ModuleLayers, LinearIsOneOperator) {
  for (const bool bias : {true, false}) {
    nn::Linear layer(nn::LinearOptions(24, 40).bias(bias));
    const auto ops = [&](const graph::Shape& shape, const std::vector<graph::Dimensions>& sizes) {
      return test::op_names(expect_module_replays(layer.ptr(), unary<nn::LinearImpl>(shape), sizes).graph);
    };
    EXPECT_EQ(ops({kBatch, 24}, kBatches), std::vector<std::string>{"aten::linear"});
    const std::vector<std::string> with_bias = {"aten::linear", "aten::add_.Tensor"};
    EXPECT_EQ(ops({kBatch, kSeq, 24}, kSizes), bias ? with_bias : std::vector<std::string>{"aten::linear"});
    EXPECT_EQ(ops({24}, {{}}), bias ? with_bias : std::vector<std::string>{"aten::linear"});
  }
}

// Large enough for blocked products, where a bias added first would give other bits.
TEST(ModuleLayers, LinearKeepsItsBits) {
  nn::Linear layer(1200, 300);
  expect_layer(layer, {kBatch, kSeq, 1200}, {{{"batch", 3}, {"seq", 50}}});
  expect_layer(layer, {kBatch, 1200}, {{{"batch", 150}}});
}

TEST(ModuleLayers, Convolutions) {
  expect_layer(nn::Conv1d(nn::Conv1dOptions(4, 6, 3).padding(1).groups(2)), {kBatch, 4, kSeq}, kSizes);
  expect_layer(nn::Conv1d(nn::Conv1dOptions(4, 6, 5).padding(torch::kSame)), {kBatch, 4, kSeq}, kSizes);
  expect_layer(
      nn::Conv1d(nn::Conv1dOptions(4, 6, 3).padding(2).padding_mode(torch::kCircular)), {kBatch, 4, kSeq}, kSizes);
  expect_layer(nn::Conv2d(nn::Conv2dOptions(3, 8, 3).stride(2).bias(false)), {kBatch, 3, kSeq, 16}, kSizes);
  expect_layer(nn::Conv3d(nn::Conv3dOptions(2, 3, 3).dilation(2)), {kBatch, 2, 8, kSeq, 9}, kSizes);
  expect_layer(nn::ConvTranspose1d(nn::ConvTranspose1dOptions(4, 6, 3).stride(2)), {kBatch, 4, kSeq}, kSizes);
  expect_layer(
      nn::ConvTranspose2d(nn::ConvTranspose2dOptions(3, 4, 3).stride(2).output_padding(1)), {kBatch, 3, kSeq, 7},
      kSizes);
  expect_layer(nn::ConvTranspose3d(nn::ConvTranspose3dOptions(2, 3, 2)), {kBatch, 2, 4, kSeq, 5}, kSizes);
}

TEST(ModuleLayers, Normalisations) {
  expect_layer(nn::LayerNorm(nn::LayerNormOptions({16})), {kBatch, kSeq, 16}, kSizes);
  expect_layer(nn::GroupNorm(nn::GroupNormOptions(3, 12)), {kBatch, 12, kSeq}, kSizes);
  expect_layer(nn::BatchNorm1d(6), {kBatch, 6, kSeq}, kSizes);
  expect_layer(nn::BatchNorm1d(nn::BatchNorm1dOptions(6).track_running_stats(false)), {kBatch, 6}, kBatches);
  expect_layer(nn::BatchNorm2d(nn::BatchNorm2dOptions(4).affine(false)), {kBatch, 4, kSeq, 3}, kSizes);
  expect_layer(nn::BatchNorm3d(4), {kBatch, 4, kSeq, 3, 2}, kSizes);
  expect_layer(nn::InstanceNorm1d(nn::InstanceNorm1dOptions(5).affine(true)), {kBatch, 5, kSeq}, kSizes);
  expect_layer(
      nn::InstanceNorm2d(nn::InstanceNorm2dOptions(5).track_running_stats(true)), {kBatch, 5, kSeq, 4}, kSizes);
  expect_layer(nn::LocalResponseNorm(3), {kBatch, 6, kSeq}, kSizes);
}

TEST(ModuleLayers, Embeddings) {
  nn::Embedding embedding(nn::EmbeddingOptions(5, 16).padding_idx(2));
  expect_module_replays(embedding.ptr(), unary<nn::EmbeddingImpl>({kBatch, kSeq}, at::kLong), kSizes);
  for (const auto& mode :
       {nn::EmbeddingBagOptions(5, 16).mode(torch::kMean), nn::EmbeddingBagOptions(5, 16).mode(torch::kSum),
        nn::EmbeddingBagOptions(5, 16).mode(torch::kMax)}) {
    nn::EmbeddingBag bag(mode);
    expect_module_replays(bag.ptr(), unary<nn::EmbeddingBagImpl>({kBatch, kSeq}, at::kLong), kSizes);
  }
}

TEST(ModuleLayers, Dropouts) {
  expect_layer(nn::Dropout(0.3), {kBatch, kSeq}, kSizes);
  expect_layer(nn::Dropout2d(0.3), {kBatch, 4, kSeq, 3}, kSizes);
  expect_layer(nn::Dropout3d(0.3), {kBatch, 4, kSeq, 3, 2}, kSizes);
  expect_layer(nn::AlphaDropout(0.3), {kBatch, kSeq}, kSizes);
  expect_layer(nn::FeatureAlphaDropout(0.3), {kBatch, kSeq, 4}, kSizes);
  nn::Dropout dropout(0.5);
  const auto traced = trace_module(dropout.ptr(), unary<nn::DropoutImpl>({kBatch}));
  EXPECT_EQ(test::op_names(traced.graph), std::vector<std::string>{"aten::dropout"});
}

TEST(ModuleLayers, Pooling) {
  expect_layer(nn::MaxPool1d(3), {kBatch, 4, kSeq}, kSizes);
  expect_layer(nn::MaxPool2d(nn::MaxPool2dOptions(3).stride(2).padding(1)), {kBatch, 4, kSeq, 9}, kSizes);
  expect_layer(nn::AvgPool2d(2), {kBatch, 4, kSeq, 9}, kSizes);
  expect_layer(nn::AdaptiveAvgPool1d(3), {kBatch, 4, kSeq}, kSizes);
  expect_layer(nn::AdaptiveAvgPool2d(nn::AdaptiveAvgPool2dOptions({2, std::nullopt})), {kBatch, 4, kSeq, 6}, kSizes);
  expect_layer(nn::AdaptiveMaxPool2d(nn::AdaptiveMaxPool2dOptions({2, 2})), {kBatch, 4, kSeq, 6}, kSizes);
  expect_layer(nn::LPPool2d(nn::LPPool2dOptions(2, 3)), {kBatch, 4, kSeq, 6}, kSizes);
}

TEST(ModuleLayers, Activations) {
  const graph::Shape shape = {kBatch, 6, kSeq};
  expect_layer(nn::ReLU(), shape, kSizes);
  expect_layer(nn::ReLU(nn::ReLUOptions(false)), shape, kSizes);
  expect_layer(nn::GELU(), shape, kSizes);
  expect_layer(nn::SiLU(), shape, kSizes);
  expect_layer(nn::ELU(), shape, kSizes);
  expect_layer(nn::SELU(), shape, kSizes);
  expect_layer(nn::Tanh(), shape, kSizes);
  expect_layer(nn::Sigmoid(), shape, kSizes);
  expect_layer(nn::LeakyReLU(), shape, kSizes);
  expect_layer(nn::PReLU(nn::PReLUOptions().num_parameters(6)), shape, kSizes);
  expect_layer(nn::RReLU(), shape, kSizes);
  expect_layer(nn::Hardtanh(), shape, kSizes);
  expect_layer(nn::Softplus(), shape, kSizes);
  expect_layer(nn::Softshrink(), shape, kSizes);
  expect_layer(nn::Mish(), shape, kSizes);
  expect_layer(nn::GLU(nn::GLUOptions(1)), shape, kSizes);
  expect_layer(nn::Softmax(1), shape, kSizes);
  expect_layer(nn::LogSoftmax(2), shape, kSizes);
}

TEST(ModuleLayers, ShapesAndSamples) {
  expect_layer(nn::Flatten(), {kBatch, 6, 3}, kBatches);
  expect_layer(nn::ZeroPad2d(2), {kBatch, 6, kSeq, 3}, kSizes);
  expect_layer(nn::ReflectionPad1d(2), {kBatch, 6, kSeq}, kSizes);
  expect_layer(nn::ReplicationPad2d(1), {kBatch, 6, kSeq, 3}, kSizes);
  expect_layer(nn::ConstantPad1d(nn::ConstantPad1dOptions(2, 0.5)), {kBatch, 6, kSeq}, kSizes);
  expect_layer(
      nn::Upsample(nn::UpsampleOptions().scale_factor(std::vector<double>{2.0}).mode(torch::kNearest)),
      {kBatch, 6, kSeq}, kSizes);
  expect_layer(
      nn::Upsample(nn::UpsampleOptions()
                       .scale_factor(std::vector<double>{2.0, 3.0})
                       .mode(torch::kBilinear)
                       .align_corners(false)),
      {kBatch, 3, kSeq, 5}, kSizes);
  expect_layer(nn::PixelShuffle(nn::PixelShuffleOptions(2)), {kBatch, 8, kSeq, 3}, kSizes);
  expect_layer(nn::Unfold(nn::UnfoldOptions({2, 2})), {kBatch, 3, kSeq, 4}, kSizes);
}

// (output, h, c) of a recurrent layer.
template <typename Impl, typename Forward>
ModuleSignature recurrent(const graph::Shape& shape, Forward forward) {
  return {{{"x", at::kFloat, shape}}, [forward](nn::Module& module, const Tensors& in) -> NamedOutputs {
            return forward(dynamic_cast<Impl&>(module), in[0]);
          }};
}

TEST(ModuleLayers, Recurrent) {
  nn::LSTM lstm(nn::LSTMOptions(8, 16).num_layers(2).bidirectional(true).dropout(0.2));
  for (const bool train : {true, false}) {
    lstm->train(train);
    const auto traced = expect_module_replays(
        lstm.ptr(),
        recurrent<nn::LSTMImpl>(
            {kSeq, kBatch, 8},
            [](auto& module, const auto& x) -> NamedOutputs {
              const auto [output, state] = module.forward(x);
              return {{"y", output}, {"h", std::get<0>(state)}, {"c", std::get<1>(state)}};
            }),
        kSizes);
    EXPECT_THAT(test::op_names(traced.graph), testing::Contains("aten::lstm.input"));
  }
  const auto with_state = [](auto& module, const at::Tensor& x) -> NamedOutputs {
    const auto [output, h] = module.forward(x, at::ones({1, x.size(0), 16}));
    return {{"y", output}, {"h", h}};
  };
  nn::GRU gru(nn::GRUOptions(8, 16).batch_first(true));
  expect_module_replays(gru.ptr(), recurrent<nn::GRUImpl>({kBatch, kSeq, 8}, with_state), kSizes);
  nn::RNN rnn(nn::RNNOptions(8, 16).batch_first(true).nonlinearity(torch::kReLU));
  expect_module_replays(rnn.ptr(), recurrent<nn::RNNImpl>({kBatch, kSeq, 8}, with_state), kSizes);
  nn::LSTMCell cell(8, 16);
  expect_module_replays(
      cell.ptr(),
      recurrent<nn::LSTMCellImpl>(
          {kBatch, 8},
          [](auto& module, const auto& x) -> NamedOutputs {
            const auto [h, c] = module.forward(x);
            return {{"h", h}, {"c", c}};
          }),
      kBatches);
  nn::GRUCell gru_cell(8, 16);
  expect_layer(gru_cell, {kBatch, 8}, kBatches);
}

struct LossesImpl : nn::Module {
  LossesImpl() { head = register_module("head", nn::Linear(16, 5)); }
  at::Tensor forward(const at::Tensor& x, const at::Tensor& labels) {
    const at::Tensor logits = head->forward(x);
    at::Tensor loss = F::cross_entropy(
        logits, labels, F::CrossEntropyFuncOptions().ignore_index(3).label_smoothing(0.1).reduction(torch::kMean));
    loss = loss + F::nll_loss(F::log_softmax(logits, 1), labels);
    const at::Tensor target = F::one_hot(labels, 5).to(at::kFloat);
    loss = loss + F::mse_loss(logits, target) + F::smooth_l1_loss(logits, target) + F::l1_loss(logits, target);
    loss = loss + F::binary_cross_entropy_with_logits(logits, target) + F::huber_loss(logits, target);
    loss = loss + F::kl_div(F::log_softmax(logits, 1), F::softmax(target, 1), F::KLDivFuncOptions(torch::kBatchMean));
    return loss + (1 - F::cosine_similarity(logits, target)).mean();
  }
  nn::Linear head = nullptr;
};

TEST(ModuleLayers, Losses) {
  const auto module = std::make_shared<LossesImpl>();
  const ModuleSignature signature = {
      {{"x", at::kFloat, {kBatch, 16}}, {"labels", at::kLong, {kBatch}}},
      [](nn::Module& m, const Tensors& in) -> NamedOutputs {
        return {{"loss", dynamic_cast<LossesImpl&>(m).forward(in[0], in[1])}};
      }};
  const auto traced = expect_module_replays(module, signature, kBatches);
  EXPECT_THAT(test::op_names(traced.graph), testing::Contains("aten::cross_entropy_loss"));
}

TEST(ModuleLayers, Attention) {
  nn::MultiheadAttention attention(nn::MultiheadAttentionOptions(16, 4).dropout(0.1).add_zero_attn(true));
  const ModuleSignature itself = {
      {{"x", at::kFloat, {kSeq, kBatch, 16}}}, [](nn::Module& m, const Tensors& in) -> NamedOutputs {
        auto& module = dynamic_cast<nn::MultiheadAttentionImpl&>(m);
        const auto [y, weights] = module.forward(in[0], in[0], in[0]);
        return {{"y", y}, {"weights", weights}};
      }};
  const Size length = Size::symbol("length");
  const ModuleSignature cross = {
      {{"x", at::kFloat, {kSeq, kBatch, 16}}, {"memory", at::kFloat, {length, kBatch, 16}}},
      [](nn::Module& m, const Tensors& in) -> NamedOutputs {
        auto& module = dynamic_cast<nn::MultiheadAttentionImpl&>(m);
        const auto [y, weights] = module.forward(in[0], in[1], in[1]);
        return {{"y", y}, {"weights", weights}};
      }};
  for (const bool train : {true, false}) {
    attention->train(train);
    expect_module_replays(attention.ptr(), itself, kSizes);
    expect_module_replays(attention.ptr(), cross, {{{"batch", 2}, {"seq", 5}, {"length", 9}}});
  }
}

}  // namespace
}  // namespace shardpipe::trace
