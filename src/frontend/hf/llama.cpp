// Llama (transformers' modeling_llama.py): RMSNorm, rotary positions, grouped heads, gated MLP.
#include "frontend/hf/llama.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

class LlamaRotaryEmbedding : public ScopedModule {
 public:
  explicit LlamaRotaryEmbedding(const LlamaConfig& c)
      : ScopedModule(c.name + "RotaryEmbedding"),
        inv_freq_(register_buffer("inv_freq", c.rotary.inv_freq)),
        scaling_(c.rotary.attention_scaling) {}

  RotaryAngles forward(const at::Tensor& positions) const {
    const trace::ModuleScope scope = enter();
    const RotaryAngles angles = rotary_angles(positions, inv_freq_);
    return scaling_ == 1.0 ? angles : RotaryAngles{angles.cos * scaling_, angles.sin * scaling_};
  }

 private:
  at::Tensor inv_freq_;
  double scaling_;
};

class LlamaAttention : public ScopedModule {
 public:
  LlamaAttention(const LlamaConfig& c, int64_t layer)
      : ScopedModule(c.name + "Attention"),
        layer_(layer),
        head_dim_(c.head_dim),
        q_proj_(child<Linear>("q_proj", c.hidden, c.heads * c.head_dim, c.qkv_bias, c.dtype)),
        k_proj_(child<Linear>("k_proj", c.hidden, c.kv_heads * c.head_dim, c.qkv_bias, c.dtype)),
        v_proj_(child<Linear>("v_proj", c.hidden, c.kv_heads * c.head_dim, c.qkv_bias, c.dtype)),
        o_proj_(child<Linear>("o_proj", c.heads * c.head_dim, c.hidden, c.out_bias, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, const RotaryAngles& angles, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    // The three products first: passes join neighbours that read the same input.
    at::Tensor q = q_proj_->forward(x);
    at::Tensor k = k_proj_->forward(x);
    at::Tensor v = v_proj_->forward(x);
    q = rotary(split_heads(q, head_dim_), angles.cos, angles.sin);
    k = rotary(split_heads(k, head_dim_), angles.cos, angles.sin);
    v = split_heads(v, head_dim_);
    return o_proj_->forward(attention.attend(layer_, q, k, v));
  }

 private:
  int64_t layer_;
  int64_t head_dim_;
  std::shared_ptr<Linear> q_proj_;
  std::shared_ptr<Linear> k_proj_;
  std::shared_ptr<Linear> v_proj_;
  std::shared_ptr<Linear> o_proj_;
};

class LlamaMLP : public ScopedModule {
 public:
  explicit LlamaMLP(const LlamaConfig& c)
      : ScopedModule(c.name + "MLP"),
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
  LlamaDecoderLayer(const LlamaConfig& c, int64_t layer)
      : ScopedModule(c.name + "DecoderLayer"),
        self_attn_(child<LlamaAttention>("self_attn", c, layer)),
        mlp_(child<LlamaMLP>("mlp", c)),
        input_layernorm_(child<RmsNorm>("input_layernorm", c.name + "RMSNorm", c.hidden, c.eps, c.dtype)),
        post_attention_layernorm_(
            child<RmsNorm>("post_attention_layernorm", c.name + "RMSNorm", c.hidden, c.eps, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, const RotaryAngles& angles, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor attended = x + self_attn_->forward(input_layernorm_->forward(x), angles, attention);
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
      : ScopedModule(c.name + "Model"),
        embed_tokens_(child<Embedding>("embed_tokens", c.vocab, c.hidden, c.dtype, c.padding)) {
    for (int64_t i = 0; i < c.layers; ++i) {
      layers_.push_back(item<LlamaDecoderLayer>("layers", i, c, i));
    }
    norm_ = child<RmsNorm>("norm", c.name + "RMSNorm", c.hidden, c.eps, c.dtype);
    rotary_emb_ = child<LlamaRotaryEmbedding>("rotary_emb", c);
  }

  // The normalised hidden states of the selected tokens.
  at::Tensor forward(const Tokens& tokens, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    at::Tensor x = embed_tokens_->forward(tokens.input_ids);
    const RotaryAngles angles = rotary_emb_->forward(tokens.positions);
    for (const auto& layer : layers_) {
      x = layer->forward(x, angles, attention);
    }
    return norm_->forward(tokens.select(x));
  }

  const at::Tensor& embedding() const { return embed_tokens_->weight(); }

 private:
  std::shared_ptr<Embedding> embed_tokens_;
  std::vector<std::shared_ptr<LlamaDecoderLayer>> layers_;
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<LlamaRotaryEmbedding> rotary_emb_;
};

}  // namespace

LlamaConfig read_llama(const Config& config, std::string name, const LlamaDefaults& defaults, at::ScalarType dtype) {
  LlamaConfig llama{};
  llama.name = std::move(name);
  llama.dtype = dtype;
  llama.layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  llama.hidden = config.integer("hidden_size", 1, kMaxFeatures);
  llama.intermediate = config.integer("intermediate_size", 1, kMaxFeatures);
  llama.vocab = config.integer("vocab_size", 1, kMaxVocabulary);
  llama.padding = padding_row(config, llama.vocab, std::nullopt);
  llama.max_positions = config.integer("max_position_embeddings", 1, kMaxPositionCount, defaults.max_positions);
  llama.heads = config.integer("num_attention_heads", 1, kMaxHeads);
  const bool kv_given = config.written("num_key_value_heads");
  const int64_t kv_heads = kv_given ? llama.heads : defaults.kv_heads.value_or(llama.heads);
  llama.kv_heads = config.integer("num_key_value_heads", 1, kMaxHeads, kv_heads);
  if (llama.heads % llama.kv_heads != 0) {
    throw_input(
        "{}; a multiple of num_key_value_heads, {}, is expected", config.subject("num_attention_heads"),
        llama.kv_heads);
  }
  if (config.has("head_dim")) {
    llama.head_dim = config.integer("head_dim", 1, kMaxHeadDim);
  } else {
    llama.head_dim = head_size(config, "hidden_size", llama.hidden, llama.heads);
  }
  if (llama.head_dim % 2 != 0) {
    throw_input("the head size in {} is {}; rotary positions need an even one", config.where(), llama.head_dim);
  }
  llama.eps = config.number("rms_norm_eps", 0.0, 1.0, 1e-6);
  llama.activation = find_activation(config, "hidden_act", "silu");
  llama.rotary = rotary_frequencies(config, llama.head_dim, llama.max_positions);
  llama.windows.resize(static_cast<size_t>(llama.layers));
  return llama;
}

std::optional<int64_t> read_window(const Config& config, int64_t fallback) {
  if (!config.written("sliding_window")) {
    return fallback;
  }
  return config.find_integer("sliding_window", 1, kMaxPositionCount);
}

std::shared_ptr<Decoder> make_llama(const LlamaConfig& c, bool tied) {
  const Head head{c.hidden, c.vocab, tied};
  auto model = std::make_shared<CausalModel<LlamaModel>>(c.name + "ForCausalLM", "model", head, c.dtype, c);
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  for (size_t i = 0; i < c.windows.size(); ++i) {
    model->attention_layers.push_back({fmt::format("model.layers.{}.self_attn", i), scale, c.windows[i]});
  }
  model->kv_heads = c.kv_heads;
  model->head_dim = c.head_dim;
  model->max_positions = c.rotary.end_position.value_or(c.max_positions);
  model->bounded_positions = c.rotary.end_position.has_value();
  return model;
}

namespace {

std::shared_ptr<Decoder> build_llama(const Config& config, at::ScalarType dtype, bool tied) {
  LlamaConfig llama = read_llama(config, "Llama", {.max_positions = 2048}, dtype);
  llama.qkv_bias = config.boolean("attention_bias", false);
  llama.out_bias = llama.qkv_bias;
  llama.mlp_bias = config.boolean("mlp_bias", false);
  return make_llama(llama, tied);
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
