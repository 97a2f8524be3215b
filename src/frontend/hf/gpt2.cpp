// GPT-2 (transformers' modeling_gpt2.py): LayerNorm, learned positions, fused query-key-value projection.
#include "frontend/hf/gpt2.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

struct Gpt2Config {
  int64_t layers;
  int64_t hidden;
  int64_t inner;
  int64_t heads;
  int64_t head_dim;
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
  gpt2.head_dim = head_size(config, {"n_embd", "hidden_size"}, gpt2.hidden, gpt2.heads);
  gpt2.vocab = config.integer("vocab_size", 1, kMaxVocabulary);
  gpt2.positions = config.integer({"n_positions", "max_position_embeddings"}, 1, kMaxFeatures);
  gpt2.eps = config.number("layer_norm_epsilon", 0.0, 1.0, 1e-5);
  gpt2.scale_by_head_dim = config.boolean("scale_attn_weights", true);
  gpt2.scale_by_layer = config.boolean("scale_attn_by_inverse_layer_idx", false);
  gpt2.activation = find_activation(config, "activation_function", "gelu_new");
  return gpt2;
}

double score_scale(const Gpt2Config& c, int64_t layer) {
  const double by_head = c.scale_by_head_dim ? 1.0 / std::sqrt(static_cast<double>(c.head_dim)) : 1.0;
  return by_head / (c.scale_by_layer ? static_cast<double>(layer + 1) : 1.0);
}

class GPT2Attention : public ScopedModule {
 public:
  GPT2Attention(const Gpt2Config& c, int64_t layer)
      : ScopedModule("GPT2Attention"),
        layer_(layer),
        head_dim_(c.head_dim),
        c_attn_(child<Conv1D>("c_attn", c.hidden, 3 * c.hidden, c.dtype)),
        c_proj_(child<Conv1D>("c_proj", c.hidden, c.hidden, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    // Columns of c_attn: all queries, all keys, all values.
    const at::Tensor qkv = c_attn_->forward(x).unflatten(-1, {3, -1, head_dim_});
    return c_proj_->forward(attention.attend(layer_, qkv.select(-3, 0), qkv.select(-3, 1), qkv.select(-3, 2)));
  }

 private:
  int64_t layer_;
  int64_t head_dim_;
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

struct GPT2Block : Gpt2Block<GPT2Attention, GPT2MLP, Gpt2Config> {
  GPT2Block(const Gpt2Config& c, int64_t layer) : Gpt2Block("GPT2Block", c, layer) {}
};

std::shared_ptr<Decoder> build_gpt2(const Config& config, at::ScalarType dtype, bool tied) {
  const Gpt2Config c = read_gpt2(config, dtype);
  const Head head{c.hidden, c.vocab, tied};
  using Base = Gpt2Base<GPT2Block, Gpt2Config>;
  auto model = std::make_shared<CausalModel<Base>>("GPT2LMHeadModel", "transformer", head, dtype, "GPT2Model", c);
  for (int64_t i = 0; i < c.layers; ++i) {
    model->attention_layers.push_back({fmt::format("transformer.h.{}.attn", i), score_scale(c, i)});
  }
  model->kv_heads = c.heads;
  model->head_dim = c.head_dim;
  model->max_positions = c.positions;
  model->bounded_positions = true;
  return model;
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
