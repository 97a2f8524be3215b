// BLOOM (transformers' modeling_bloom.py): ALiBi in place of positions, a norm behind the embedding, queries, keys and
// values fused head by head.
#include <ATen/ATen.h>

#include <array>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "frontend/hf/decoder.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

struct BloomConfig {
  int64_t layers;
  int64_t hidden;
  int64_t heads;
  int64_t head_dim;
  int64_t vocab;
  double eps;
  bool residual_after_norm;
  at::ScalarType dtype;
};

BloomConfig read_bloom(const Config& config, at::ScalarType dtype) {
  if (config.boolean("slow_but_exact", false) && config.integer("pretraining_tp", 1, kMaxFeatures, 1) > 1) {
    throw_usage("{} with a pretraining_tp above 1, which is not supported", config.subject("slow_but_exact"));
  }
  const Key hidden_key("n_embed", "hidden_size");
  BloomConfig bloom{};
  bloom.dtype = dtype;
  bloom.layers = config.integer({"n_layer", "num_hidden_layers"}, 1, kMaxLayers);
  bloom.hidden = config.integer(hidden_key, 1, kMaxFeatures / 4);
  bloom.heads = config.integer({"n_head", "num_attention_heads"}, 1, kMaxHeads);
  bloom.head_dim = head_size(config, hidden_key, bloom.hidden, bloom.heads);
  bloom.vocab = config.integer("vocab_size", 1, kMaxVocabulary);
  bloom.eps = config.number("layer_norm_epsilon", 0.0, 1.0, 1e-5);
  bloom.residual_after_norm = config.boolean("apply_residual_connection_post_layernorm", false);
  return bloom;
}

// Powers of 2^(-8 / n) for n heads, n a power of two; the heads beyond take every other power for 2 n heads. In float32
// as transformers computes them.
at::Tensor alibi_slopes(int64_t heads) {
  const auto whole = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(heads)));
  const auto powers = [](int64_t count, int64_t step, int64_t of) {
    const double base = std::exp2(-std::exp2(3.0 - std::log2(static_cast<double>(of))));
    return at::pow(at::scalar_tensor(base, at::kFloat), at::arange(1, 1 + count * step, step, at::kInt));
  };
  return at::cat({powers(whole, 1, whole), powers(heads - whole, 2, 2 * whole)});
}

at::Tensor gelu(const at::Tensor& x) {
  return at::gelu(x, "tanh");
}

class BloomAttention : public ScopedModule {
 public:
  BloomAttention(const BloomConfig& c, int64_t layer)
      : ScopedModule("BloomAttention"),
        layer_(layer),
        head_dim_(c.head_dim),
        query_key_value_(child<Linear>("query_key_value", c.hidden, 3 * c.hidden, true, c.dtype)),
        dense_(child<Linear>("dense", c.hidden, c.hidden, true, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    // Rows of query_key_value: head by head its query, key and value.
    const at::Tensor qkv = query_key_value_->forward(x).unflatten(-1, {-1, 3, head_dim_});
    return dense_->forward(attention.attend(layer_, qkv.select(-2, 0), qkv.select(-2, 1), qkv.select(-2, 2)));
  }

 private:
  int64_t layer_;
  int64_t head_dim_;
  std::shared_ptr<Linear> query_key_value_;
  std::shared_ptr<Linear> dense_;
};

class BloomBlock : public ScopedModule {
 public:
  BloomBlock(const BloomConfig& c, int64_t layer)
      : ScopedModule("BloomBlock"),
        residual_after_norm_(c.residual_after_norm),
        input_layernorm_(child<LayerNorm>("input_layernorm", c.hidden, c.eps, c.dtype)),
        self_attention_(child<BloomAttention>("self_attention", c, layer)),
        post_attention_layernorm_(child<LayerNorm>("post_attention_layernorm", c.hidden, c.eps, c.dtype)),
        mlp_(child<FeedForward>(
            "mlp",
            "BloomMLP",
            "dense_h_to_4h",
            "dense_4h_to_h",
            FeedForward::Sizes{c.hidden, 4 * c.hidden},
            gelu,
            c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor normed = input_layernorm_->forward(x);
    const at::Tensor attended = self_attention_->forward(normed, attention) + (residual_after_norm_ ? normed : x);
    const at::Tensor after = post_attention_layernorm_->forward(attended);
    return mlp_->forward(after) + (residual_after_norm_ ? after : attended);
  }

 private:
  bool residual_after_norm_;
  std::shared_ptr<LayerNorm> input_layernorm_;
  std::shared_ptr<BloomAttention> self_attention_;
  std::shared_ptr<LayerNorm> post_attention_layernorm_;
  std::shared_ptr<FeedForward> mlp_;
};

class BloomModel : public ScopedModule {
 public:
  explicit BloomModel(const BloomConfig& c)
      : ScopedModule("BloomModel"),
        word_embeddings_(child<Embedding>("word_embeddings", c.vocab, c.hidden, c.dtype)),
        word_embeddings_layernorm_(child<LayerNorm>("word_embeddings_layernorm", c.hidden, c.eps, c.dtype)),
        slopes_(register_buffer("alibi_slopes", alibi_slopes(c.heads))) {
    for (int64_t i = 0; i < c.layers; ++i) {
      h_.push_back(item<BloomBlock>("h", i, c, i));
    }
    ln_f_ = child<LayerNorm>("ln_f", c.hidden, c.eps, c.dtype);
  }

  at::Tensor forward(const Tokens& tokens, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    at::Tensor x = word_embeddings_layernorm_->forward(word_embeddings_->forward(tokens.input_ids));
    for (const auto& block : h_) {
      x = block->forward(x, attention);
    }
    return ln_f_->forward(tokens.select(x));
  }

  const at::Tensor& embedding() const { return word_embeddings_->weight(); }
  const at::Tensor& slopes() const { return slopes_; }

 private:
  std::shared_ptr<Embedding> word_embeddings_;
  std::shared_ptr<LayerNorm> word_embeddings_layernorm_;
  at::Tensor slopes_;
  std::vector<std::shared_ptr<BloomBlock>> h_;
  std::shared_ptr<LayerNorm> ln_f_;
};

std::shared_ptr<Decoder> build_bloom(const Config& config, at::ScalarType dtype, bool tied) {
  const BloomConfig c = read_bloom(config, dtype);
  const Head head{c.hidden, c.vocab, tied};
  auto model = std::make_shared<CausalModel<BloomModel>>("BloomForCausalLM", "transformer", head, dtype, c);
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  for (int64_t i = 0; i < c.layers; ++i) {
    model->attention_layers.push_back({fmt::format("transformer.h.{}.self_attention", i), scale});
  }
  model->slopes = model->base().slopes();
  model->kv_heads = c.heads;
  model->head_dim = c.head_dim;
  // Nothing in the model ends anywhere; older files say how long the rows were that it learned from.
  model->max_positions = config.integer({"seq_length", "n_positions"}, 1, kMaxPositionCount, kMaxPositionCount);
  return model;
}

constexpr std::array<std::string_view, 2> kArchitectures = {"BloomForCausalLM", "BloomModel"};
// Causal masks that older versions saved.
constexpr std::array<std::string_view, 1> kIgnored = {"*.self_attention.scale_mask_softmax.causal_mask"};

}  // namespace

const Family kBloom = {
    .model_type = "bloom",
    .architectures = kArchitectures,
    .build = build_bloom,
    .base_prefix = "transformer.",
    .embedding = "transformer.word_embeddings.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .tied_by_default = true,
    .default_eos = 2,
};

}  // namespace shardpipe::hf
