// GPT-2 (transformers' modeling_gpt2.py): LayerNorm, learned positions, fused query-key-value projection.
#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

struct Gpt2Config {
  int64_t layers;
  int64_t hidden;
  int64_t inner;
  int64_t heads;
  int64_t vocab;
  int64_t positions;
  double eps;
  bool scale_by_head_dim;
  bool scale_by_layer;
  Activation activation;
  at::ScalarType dtype;
};

Gpt2Config read_gpt2(const Config& config, at::ScalarType dtype) {
  Gpt2Config gpt2{};
  gpt2.dtype = dtype;
  gpt2.layers = config.integer({"n_layer", "num_hidden_layers"}, 1, kMaxLayers);
  gpt2.hidden = config.integer({"n_embd", "hidden_size"}, 1, kMaxFeatures / 4);
  gpt2.inner = config.integer("n_inner", 1, kMaxFeatures, 4 * gpt2.hidden);
  gpt2.heads = config.integer({"n_head", "num_attention_heads"}, 1, kMaxHeads);
  if (gpt2.hidden % gpt2.heads != 0) {
    throw_input(
        "{}; a multiple of the number of heads, {}, is expected", config.subject({"n_embd", "hidden_size"}),
        gpt2.heads);
  }
  gpt2.vocab = config.integer("vocab_size", 1, kMaxVocabulary);
  gpt2.positions = config.integer({"n_positions", "max_position_embeddings"}, 1, kMaxFeatures);
  gpt2.eps = config.number("layer_norm_epsilon", 0.0, 1.0, 1e-5);
  gpt2.scale_by_head_dim = config.boolean("scale_attn_weights", true);
  gpt2.scale_by_layer = config.boolean("scale_attn_by_inverse_layer_idx", false);
  gpt2.activation = find_activation(config, "activation_function", "gelu_new");
  return gpt2;
}

class GPT2Attention : public ScopedModule {
 public:
  GPT2Attention(const Gpt2Config& c, int64_t layer)
      : ScopedModule("GPT2Attention"),
        heads_(c.heads),
        head_dim_(c.hidden / c.heads),
        scale_(
            (c.scale_by_head_dim ? 1.0 / std::sqrt(static_cast<double>(head_dim_)) : 1.0) /
            (c.scale_by_layer ? static_cast<double>(layer + 1) : 1.0)),
        c_attn_(child<Conv1D>("c_attn", c.hidden, 3 * c.hidden, c.dtype)),
        c_proj_(child<Conv1D>("c_proj", c.hidden, c.hidden, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, const PackedTokens& tokens, const LayerCache& cache) const {
    const trace::ModuleScope scope = enter();
    // Columns of c_attn: all queries, all keys, all values.
    const at::Tensor qkv = c_attn_->forward(x).view({-1, 3, heads_, head_dim_});
    const at::Tensor q = qkv.select(1, 0);
    const at::Tensor k = qkv.select(1, 1);
    const at::Tensor v = qkv.select(1, 2);
    return c_proj_->forward(cached_attention(q, k, v, cache, tokens, scale_));
  }

 private:
  int64_t heads_;
  int64_t head_dim_;
  double scale_;
  std::shared_ptr<Conv1D> c_attn_;
  std::shared_ptr<Conv1D> c_proj_;
};

class GPT2MLP : public ScopedModule {
 public:
  explicit GPT2MLP(const Gpt2Config& c)
      : ScopedModule("GPT2MLP"),
        activation_(c.activation),
        c_fc_(child<Conv1D>("c_fc", c.hidden, c.inner, c.dtype)),
        c_proj_(child<Conv1D>("c_proj", c.inner, c.hidden, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x) const {
    const trace::ModuleScope scope = enter();
    return c_proj_->forward(activation_(c_fc_->forward(x)));
  }

 private:
  Activation activation_;
  std::shared_ptr<Conv1D> c_fc_;
  std::shared_ptr<Conv1D> c_proj_;
};

class GPT2Block : public ScopedModule {
 public:
  GPT2Block(const Gpt2Config& c, int64_t layer)
      : ScopedModule("GPT2Block"),
        ln_1_(child<LayerNorm>("ln_1", c.hidden, c.eps, c.dtype)),
        attn_(child<GPT2Attention>("attn", c, layer)),
        ln_2_(child<LayerNorm>("ln_2", c.hidden, c.eps, c.dtype)),
        mlp_(child<GPT2MLP>("mlp", c)) {}

  at::Tensor forward(const at::Tensor& x, const PackedTokens& tokens, const LayerCache& cache) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor attended = attn_->forward(ln_1_->forward(x), tokens, cache) + x;
    return attended + mlp_->forward(ln_2_->forward(attended));
  }

 private:
  std::shared_ptr<LayerNorm> ln_1_;
  std::shared_ptr<GPT2Attention> attn_;
  std::shared_ptr<LayerNorm> ln_2_;
  std::shared_ptr<GPT2MLP> mlp_;
};

class GPT2Model : public ScopedModule {
 public:
  explicit GPT2Model(const Gpt2Config& c)
      : ScopedModule("GPT2Model"),
        wte_(child<Embedding>("wte", c.vocab, c.hidden, c.dtype)),
        wpe_(child<Embedding>("wpe", c.positions, c.hidden, c.dtype)) {
    for (int64_t i = 0; i < c.layers; ++i) {
      h_.push_back(item<GPT2Block>("h", i, c, i));
    }
    ln_f_ = child<LayerNorm>("ln_f", c.hidden, c.eps, c.dtype);
  }

  // The normalised hidden states of the selected tokens.
  at::Tensor forward(const PackedTokens& tokens, const std::vector<LayerCache>& caches) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor words = wte_->forward(tokens.input_ids);
    at::Tensor x = words + wpe_->forward(tokens.positions);
    for (size_t i = 0; i < h_.size(); ++i) {
      x = h_[i]->forward(x, tokens, caches[i]);
    }
    return ln_f_->forward(x.index_select(0, tokens.selected));
  }

  const at::Tensor& embedding() const { return wte_->weight(); }

 private:
  std::shared_ptr<Embedding> wte_;
  std::shared_ptr<Embedding> wpe_;
  std::vector<std::shared_ptr<GPT2Block>> h_;
  std::shared_ptr<LayerNorm> ln_f_;
};

class GPT2LMHeadModel : public Decoder {
 public:
  GPT2LMHeadModel(const Gpt2Config& c, bool tied)
      : Decoder("GPT2LMHeadModel"),
        transformer_(child<GPT2Model>("transformer", c)),
        lm_head_(
            tied ? child<Linear>("lm_head", transformer_->embedding())
                 : child<Linear>("lm_head", c.hidden, c.vocab, false, c.dtype)) {
    for (int64_t i = 0; i < c.layers; ++i) {
      attention_paths.push_back(fmt::format("transformer.h.{}.attn", i));
    }
    kv_heads = c.heads;
    head_dim = c.hidden / c.heads;
    vocab_size = c.vocab;
    max_positions = c.positions;
    bounded_positions = true;
  }

  at::Tensor forward(const PackedTokens& tokens, const std::vector<LayerCache>& caches) override {
    return lm_head_->forward(transformer_->forward(tokens, caches));
  }

 private:
  std::shared_ptr<GPT2Model> transformer_;
  std::shared_ptr<Linear> lm_head_;
};

std::shared_ptr<Decoder> build_gpt2(const Config& config, at::ScalarType dtype, bool tied) {
  return std::make_shared<GPT2LMHeadModel>(read_gpt2(config, dtype), tied);
}

constexpr std::array<std::string_view, 3> kArchitectures = {"GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel"};
// Causal masks that older versions saved.
constexpr std::array<std::string_view, 2> kIgnored = {"*.attn.bias", "*.attn.masked_bias"};

}  // namespace

const Family kGpt2 = {
    .model_type = "gpt2",
    .architectures = kArchitectures,
    .build = build_gpt2,
    .base_prefix = "transformer.",
    .embedding = "transformer.wte.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .tied_by_default = true,
    .default_eos = 50256,
};

}  // namespace shardpipe::hf
