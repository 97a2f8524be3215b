#pragma once

// Two models, each once of torch::nn's layers and once of parallel ones, with the same names and the same initial
// values for the same seed.
#include <shardpipe/parallel_layers.h>
#include <torch/nn.h>

#include <map>
#include <string>
#include <vector>

namespace shardpipe::test {

namespace nn = torch::nn;

struct Plain {
  using Column = nn::Linear;
  using Row = nn::Linear;
  using Embedding = nn::Embedding;

  static nn::Linear column(
      int64_t in, int64_t out, bool bias, bool /*gather*/, int64_t /*unit*/ = 1, bool /*entered*/ = false) {
    return nn::Linear(nn::LinearOptions(in, out).bias(bias));
  }
  static nn::Linear row(int64_t in, int64_t out, bool bias, bool /*parallel*/, int64_t /*unit*/ = 1) {
    return nn::Linear(nn::LinearOptions(in, out).bias(bias));
  }
  static nn::Embedding embedding(int64_t rows, int64_t width, std::optional<int64_t> padding = {}) {
    nn::EmbeddingOptions options(rows, width);
    if (padding) {
      options.padding_idx(*padding);
    }
    return nn::Embedding(options);
  }
  static at::Tensor enter(const nn::Module& /*layer*/, const at::Tensor& x) { return x; }
  static at::Tensor logits(const nn::Embedding& table, const at::Tensor& x) { return at::linear(x, table->weight); }
  static at::Tensor loss(
      const at::Tensor& logits,
      const at::Tensor& target,
      const nn::Module& /*head*/,
      LossReduction reduction,
      int64_t ignored = -100) {
    const int64_t how = reduction == LossReduction::none   ? at::Reduction::None
                        : reduction == LossReduction::mean ? at::Reduction::Mean
                                                           : at::Reduction::Sum;
    return at::cross_entropy_loss(logits, target, {}, how, ignored);
  }
};

struct Parallel {
  using Column = ColumnParallelLinear;
  using Row = RowParallelLinear;
  using Embedding = VocabParallelEmbedding;

  static ColumnParallelLinear column(
      int64_t in, int64_t out, bool bias, bool gather, int64_t unit = 1, bool entered = false) {
    return ColumnParallelLinear(
        ColumnParallelLinearOptions(in, out).bias(bias).gather_output(gather).unit(unit).entered(entered));
  }
  static RowParallelLinear row(int64_t in, int64_t out, bool bias, bool parallel, int64_t unit = 1) {
    return RowParallelLinear(RowParallelLinearOptions(in, out).bias(bias).input_is_parallel(parallel).unit(unit));
  }
  static VocabParallelEmbedding embedding(int64_t rows, int64_t width, std::optional<int64_t> padding = {}) {
    return VocabParallelEmbedding(VocabParallelEmbeddingOptions(rows, width).padding_idx(padding));
  }
  static at::Tensor enter(const ParallelLayer& layer, const at::Tensor& x) { return layer.enter(x); }
  static at::Tensor logits(VocabParallelEmbedding& table, const at::Tensor& x) { return table->logits(x); }
  static at::Tensor loss(
      const at::Tensor& logits,
      const at::Tensor& target,
      const ParallelLayer& head,
      LossReduction reduction,
      int64_t ignored = -100) {
    return parallel_cross_entropy(logits, target, head, reduction, ignored);
  }
};

using Outputs = std::vector<std::pair<std::string, at::Tensor>>;

/// Every layer in every form, with extents that 2 and 3 do not divide and such that are below 3.
template <typename L>
struct Layers : nn::Module {
  Layers() {
    first = register_module("first", L::column(5, 7, true, true));
    second = register_module("second", L::row(7, 6, true, false));
    up = register_module("up", L::column(6, 10, false, false, 2));
    down = register_module("down", L::row(10, 4, false, true, 2));
    narrow = register_module("narrow", L::column(4, 2, true, false));
    wide = register_module("wide", L::row(2, 3, true, true));
    words = register_module("words", L::embedding(11, 4, -4));
    kinds = register_module("kinds", L::embedding(2, 4));
    head = register_module("head", L::column(4, 5, true, true));
  }
  /// x [rows, 5], ids [rows] below 11, target [rows]
  Outputs run(const std::vector<at::Tensor>& in) {
    const at::Tensor& ids = in[1];
    const at::Tensor& target = in[2];
    const at::Tensor h = down(torch::tanh(up(torch::tanh(second(torch::tanh(first(in[0])))))));
    const at::Tensor y = wide(torch::relu(narrow(h)));
    const at::Tensor e = words(ids) + kinds(target.remainder(2)) + h;
    const at::Tensor each = L::loss(L::logits(words, e), target, *words, LossReduction::none, 3);
    const at::Tensor sum = L::loss(L::logits(words, e + 1), target, *words, LossReduction::sum);
    // Classes are dimension 1 of three.
    const at::Tensor scores = L::logits(kinds, torch::tanh(e).view({-1, 2, 4})).transpose(1, 2);
    const at::Tensor mean = L::loss(scores, target.remainder(2).view({-1, 2}), *kinds, LossReduction::mean);
    const at::Tensor whole = L::loss(head(e), target.remainder(5), *head, LossReduction::mean);
    const at::Tensor loss = y.square().sum() + each.cos().sum() + sum + 3 * mean + whole;
    return {{"y", y}, {"each", each}, {"mean", mean}, {"loss", loss}};
  }
  typename L::Column first{nullptr}, up{nullptr}, narrow{nullptr}, head{nullptr};
  typename L::Row second{nullptr}, down{nullptr}, wide{nullptr};
  typename L::Embedding words{nullptr}, kinds{nullptr};
};

/// A transformer block of 5 heads of 4 between a table of words and a head over them.
template <typename L>
struct Block : nn::Module {
  static constexpr int64_t kHeads = 5, kHead = 4, kWidth = 18, kWords = 31;
  Block() {
    words = register_module("words", L::embedding(kWords, kWidth));
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({kWidth})));
    q = register_module("q", L::column(kWidth, kHeads * kHead, true, false, kHead, true));
    k = register_module("k", L::column(kWidth, kHeads * kHead, true, false, kHead, true));
    v = register_module("v", L::column(kWidth, kHeads * kHead, true, false, kHead, true));
    out = register_module("out", L::row(kHeads * kHead, kWidth, true, true, kHead));
    up = register_module("up", L::column(kWidth, 26, true, false));
    down = register_module("down", L::row(26, kWidth, true, true));
    head = register_module("head", L::column(kWidth, kWords, false, false));
  }
  /// ids, target [batch, length]
  Outputs run(const std::vector<at::Tensor>& in) {
    at::Tensor h = words(in[0]);
    const at::Tensor x = L::enter(*q, norm(h));
    const auto heads = [&](const at::Tensor& y) { return y.unflatten(-1, {-1, kHead}).transpose(1, 2); };
    const at::Tensor mixed = at::scaled_dot_product_attention(heads(q(x)), heads(k(x)), heads(v(x)), {}, 0, true);
    h = h + out(mixed.transpose(1, 2).flatten(2));
    h = h + down(torch::gelu(up(norm(h))));
    const at::Tensor logits = head(h).flatten(0, 1);
    return {{"h", h}, {"loss", L::loss(logits, in[1].flatten(), *head, LossReduction::mean)}};
  }
  typename L::Embedding words{nullptr};
  nn::LayerNorm norm{nullptr};
  typename L::Column q{nullptr}, k{nullptr}, v{nullptr}, up{nullptr}, head{nullptr};
  typename L::Row out{nullptr}, down{nullptr};
};

template <typename M>
std::shared_ptr<M> seeded(uint64_t seed) {
  torch::manual_seed(seed);
  return std::make_shared<M>();
}

}  // namespace shardpipe::test
