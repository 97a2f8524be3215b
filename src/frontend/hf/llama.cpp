// Llama (transformers' modeling_llama.py): RMSNorm, rotary positions, grouped heads, gated MLP.
#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"
#include "frontend/hf/rotary.h"

namespace shardpipe::hf {
namespace {

struct LlamaConfig {
  int64_t layers;
  int64_t hidden;
  int64_t intermediate;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t vocab;
  int64_t max_positions;
  double eps;
  bool attention_bias;
  bool mlp_bias;
  Activation activation;
  RotaryFrequencies rotary;
  at::ScalarType dtype;
};

LlamaConfig read_llama(const Config& config, at::ScalarType dtype) {
  LlamaConfig llama{};
  llama.dtype = dtype;
  llama.layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  llama.hidden = config.integer("hidden_size", 1, kMaxFeatures);
  llama.intermediate = config.integer("intermediate_size", 1, kMaxFeatures);
  llama.vocab = config.integer("vocab_size", 1, kMaxVocabulary);
  llama.max_positions = config.integer("max_position_embeddings", 1, kMaxPositionCount, 2048);
  llama.heads = config.integer("num_attention_heads", 1, kMaxHeads);
  llama.kv_heads = config.integer("num_key_value_heads", 1, kMaxHeads, llama.heads);
  if (llama.heads % llama.kv_heads != 0) {
    throw_input(
        "{}; a multiple of num_key_value_heads, {}, is expected", config.subject("num_attention_heads"),
        llama.kv_heads);
  }
  if (llama.hidden % llama.heads != 0) {
    throw_input("{}; a multiple of num_attention_heads, {}, is expected", config.subject("hidden_size"), llama.heads);
  }
  llama.head_dim = config.integer("head_dim", 1, kMaxHeadDim, llama.hidden / llama.heads);
  if (llama.head_dim % 2 != 0) {
    throw_input("the head size in {} is {}; rotary positions need an even one", config.where(), llama.head_dim);
  }
  llama.eps = config.number("rms_norm_eps", 0.0, 1.0, 1e-6);
  llama.attention_bias = config.boolean("attention_bias", false);
  llama.mlp_bias = config.boolean("mlp_bias", false);
  llama.activation = find_activation(config, "hidden_act", "silu");
  llama.rotary = rotary_frequencies(config, llama.head_dim, llama.max_positions);
  return llama;
}

// cos and sin [tokens, head_dim / 2], float32, computed once for all layers.
struct Angles {
  at::Tensor cos;
  at::Tensor sin;
};

class LlamaRotaryEmbedding : public ScopedModule {
 public:
  explicit LlamaRotaryEmbedding(const RotaryFrequencies& frequencies)
      : ScopedModule("LlamaRotaryEmbedding"),
        inv_freq_(register_buffer("inv_freq", frequencies.inv_freq)),
        scaling_(frequencies.attention_scaling) {}

  Angles forward(const at::Tensor& positions) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) * inv_freq_.unsqueeze(0);
    at::Tensor cos = angles.cos();
    at::Tensor sin = angles.sin();
    return scaling_ == 1.0 ? Angles{cos, sin} : Angles{cos * scaling_, sin * scaling_};
  }

 private:
  at::Tensor inv_freq_;
  double scaling_;
};

class LlamaAttention : public ScopedModule {
 public:
  explicit LlamaAttention(const LlamaConfig& c)
      : ScopedModule("LlamaAttention"),
        heads_(c.heads),
        kv_heads_(c.kv_heads),
        head_dim_(c.head_dim),
        q_proj_(child<Linear>("q_proj", c.hidden, c.heads * c.head_dim, c.attention_bias, c.dtype)),
        k_proj_(child<Linear>("k_proj", c.hidden, c.kv_heads * c.head_dim, c.attention_bias, c.dtype)),
        v_proj_(child<Linear>("v_proj", c.hidden, c.kv_heads * c.head_dim, c.attention_bias, c.dtype)),
        o_proj_(child<Linear>("o_proj", c.heads * c.head_dim, c.hidden, c.attention_bias, c.dtype)) {}

  at::Tensor forward(
      const at::Tensor& x, const Angles& angles, const PackedTokens& tokens, const LayerCache& cache) const {
    const trace::ModuleScope scope = enter();
    // The three products first: passes join neighbours that read the same input.
    at::Tensor q = q_proj_->forward(x);
    at::Tensor k = k_proj_->forward(x);
    at::Tensor v = v_proj_->forward(x);
    q = rotary(q.view({-1, heads_, head_dim_}), angles.cos, angles.sin);
    k = rotary(k.view({-1, kv_heads_, head_dim_}), angles.cos, angles.sin);
    v = v.view({-1, kv_heads_, head_dim_});
    const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim_));
    return o_proj_->forward(cached_attention(q, k, v, cache, tokens, scale));
  }

 private:
  int64_t heads_;
  int64_t kv_heads_;
  int64_t head_dim_;
  std::shared_ptr<Linear> q_proj_;
  std::shared_ptr<Linear> k_proj_;
  std::shared_ptr<Linear> v_proj_;
  std::shared_ptr<Linear> o_proj_;
};

class LlamaMLP : public ScopedModule {
 public:
  explicit LlamaMLP(const LlamaConfig& c)
      : ScopedModule("LlamaMLP"),
        activation_(c.activation),
        gate_proj_(child<Linear>("gate_proj", c.hidden, c.intermediate, c.mlp_bias, c.dtype)),
        up_proj_(child<Linear>("up_proj", c.hidden, c.intermediate, c.mlp_bias, c.dtype)),
        down_proj_(child<Linear>("down_proj", c.intermediate, c.hidden, c.mlp_bias, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor gate = gate_proj_->forward(x);
    const at::Tensor up = up_proj_->forward(x);
    return down_proj_->forward(activation_(gate) * up);
  }

 private:
  Activation activation_;
  std::shared_ptr<Linear> gate_proj_;
  std::shared_ptr<Linear> up_proj_;
  std::shared_ptr<Linear> down_proj_;
};

class LlamaDecoderLayer : public ScopedModule {
 public:
  explicit LlamaDecoderLayer(const LlamaConfig& c)
      : ScopedModule("LlamaDecoderLayer"),
        self_attn_(child<LlamaAttention>("self_attn", c)),
        mlp_(child<LlamaMLP>("mlp", c)),
        input_layernorm_(child<RmsNorm>("input_layernorm", "LlamaRMSNorm", c.hidden, c.eps, c.dtype)),
        post_attention_layernorm_(
            child<RmsNorm>("post_attention_layernorm", "LlamaRMSNorm", c.hidden, c.eps, c.dtype)) {}

  at::Tensor forward(
      const at::Tensor& x, const Angles& angles, const PackedTokens& tokens, const LayerCache& cache) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor attended = x + self_attn_->forward(input_layernorm_->forward(x), angles, tokens, cache);
    return attended + mlp_->forward(post_attention_layernorm_->forward(attended));
  }

 private:
  std::shared_ptr<LlamaAttention> self_attn_;
  std::shared_ptr<LlamaMLP> mlp_;
  std::shared_ptr<RmsNorm> input_layernorm_;
  std::shared_ptr<RmsNorm> post_attention_layernorm_;
};

class LlamaModel : public ScopedModule {
 public:
  explicit LlamaModel(const LlamaConfig& c)
      : ScopedModule("LlamaModel"), embed_tokens_(child<Embedding>("embed_tokens", c.vocab, c.hidden, c.dtype)) {
    for (int64_t i = 0; i < c.layers; ++i) {
      layers_.push_back(item<LlamaDecoderLayer>("layers", i, c));
    }
    norm_ = child<RmsNorm>("norm", "LlamaRMSNorm", c.hidden, c.eps, c.dtype);
    rotary_emb_ = child<LlamaRotaryEmbedding>("rotary_emb", c.rotary);
  }

  // The normalised hidden states of the selected tokens.
  at::Tensor forward(const PackedTokens& tokens, const std::vector<LayerCache>& caches) const {
    const trace::ModuleScope scope = enter();
    at::Tensor x = embed_tokens_->forward(tokens.input_ids);
    const Angles angles = rotary_emb_->forward(tokens.positions);
    for (size_t i = 0; i < layers_.size(); ++i) {
      x = layers_[i]->forward(x, angles, tokens, caches[i]);
    }
    return norm_->forward(x.index_select(0, tokens.selected));
  }

  const at::Tensor& embedding() const { return embed_tokens_->weight(); }

 private:
  std::shared_ptr<Embedding> embed_tokens_;
  std::vector<std::shared_ptr<LlamaDecoderLayer>> layers_;
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<LlamaRotaryEmbedding> rotary_emb_;
};

class LlamaForCausalLM : public Decoder {
 public:
  LlamaForCausalLM(const LlamaConfig& c, bool tied)
      : Decoder("LlamaForCausalLM"),
        model_(child<LlamaModel>("model", c)),
        lm_head_(
            tied ? child<Linear>("lm_head", model_->embedding())
                 : child<Linear>("lm_head", c.hidden, c.vocab, false, c.dtype)) {
    for (int64_t i = 0; i < c.layers; ++i) {
      attention_paths.push_back(fmt::format("model.layers.{}.self_attn", i));
    }
    kv_heads = c.kv_heads;
    head_dim = c.head_dim;
    vocab_size = c.vocab;
    max_positions = c.rotary.end_position.value_or(c.max_positions);
    bounded_positions = c.rotary.end_position.has_value();
  }

  at::Tensor forward(const PackedTokens& tokens, const std::vector<LayerCache>& caches) override {
    return lm_head_->forward(model_->forward(tokens, caches));
  }

 private:
  std::shared_ptr<LlamaModel> model_;
  std::shared_ptr<Linear> lm_head_;
};

std::shared_ptr<Decoder> build_llama(const Config& config, at::ScalarType dtype, bool tied) {
  return std::make_shared<LlamaForCausalLM>(read_llama(config, dtype), tied);
}

constexpr std::array<std::string_view, 2> kArchitectures = {"LlamaForCausalLM", "LlamaModel"};
constexpr std::array<std::string_view, 1> kIgnored = {"*rotary_emb.inv_freq"};

}  // namespace

const Family kLlama = {
    .model_type = "llama",
    .architectures = kArchitectures,
    .build = build_llama,
    .base_prefix = "model.",
    .embedding = "model.embed_tokens.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .tied_by_default = false,
    .default_eos = 2,
};

}  // namespace shardpipe::hf
