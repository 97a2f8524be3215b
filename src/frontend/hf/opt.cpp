// OPT (transformers' modeling_opt.py): learned positions from row 2 of their table on, norms before or after each part,
// embeddings that may be narrower than the layers.
#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "frontend/hf/decoder.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

constexpr int64_t kPositionOffset = 2;
constexpr double kEps = 1e-5;  // torch.nn.LayerNorm's own

struct OptConfig {
  int64_t layers;
  int64_t hidden;
  int64_t embedding;
  int64_t inner;
  int64_t heads;
  int64_t head_dim;
  int64_t vocab;
  std::optional<int64_t> padding;
  int64_t positions;
  bool norm_before;
  bool final_norm;
  bool bias;
  bool affine;
  Activation activation;
  at::ScalarType dtype;
};

OptConfig read_opt(const Config& config, at::ScalarType dtype) {
  OptConfig opt{};
  opt.dtype = dtype;
  opt.layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  opt.hidden = config.integer("hidden_size", 1, kMaxFeatures);
  opt.embedding = config.integer("word_embed_proj_dim", 1, kMaxFeatures, opt.hidden);
  opt.inner = config.integer("ffn_dim", 1, kMaxFeatures);
  opt.heads = config.integer("num_attention_heads", 1, kMaxHeads);
  opt.head_dim = head_size(config, "hidden_size", opt.hidden, opt.heads);
  opt.vocab = config.integer("vocab_size", 1, kMaxVocabulary);
  opt.padding = padding_row(config, opt.vocab, 1);
  opt.positions = config.integer("max_position_embeddings", 1, kMaxFeatures, 2048);
  opt.norm_before = config.boolean("do_layer_norm_before", true);
  opt.final_norm = opt.norm_before && !config.boolean("_remove_final_layer_norm", false);
  opt.bias = config.boolean("enable_bias", true);
  opt.affine = config.boolean("layer_norm_elementwise_affine", true);
  opt.activation = find_activation(config, "activation_function", "relu");
  return opt;
}

class OPTLearnedPositionalEmbedding : public ScopedModule {
 public:
  explicit OPTLearnedPositionalEmbedding(const OptConfig& c)
      : ScopedModule("OPTLearnedPositionalEmbedding"),
        weight_(weight("weight", {c.positions + kPositionOffset, c.hidden}, c.dtype)) {}

  at::Tensor forward(const at::Tensor& positions) const {
    const trace::ModuleScope scope = enter();
    return at::embedding(weight_, positions + kPositionOffset);
  }

 private:
  at::Tensor weight_;
};

class OPTDecoderLayer : public ScopedModule {
 public:
  OPTDecoderLayer(const OptConfig& c, int64_t layer)
      : ScopedModule("OPTDecoderLayer"),
        norm_before_(c.norm_before),
        activation_(c.activation),
        self_attn_(child<SelfAttention>(
            "self_attn", "OPTAttention", SelfAttention::Sizes{c.hidden, c.head_dim, c.bias, c.bias}, layer, c.dtype)),
        self_attn_layer_norm_(child<LayerNorm>("self_attn_layer_norm", c.hidden, kEps, c.dtype, c.affine)),
        fc1_(child<Linear>("fc1", c.hidden, c.inner, c.bias, c.dtype)),
        fc2_(child<Linear>("fc2", c.inner, c.hidden, c.bias, c.dtype)),
        final_layer_norm_(child<LayerNorm>("final_layer_norm", c.hidden, kEps, c.dtype, c.affine)) {}

  at::Tensor forward(const at::Tensor& x, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    const auto feed_forward = [&](const at::Tensor& y) { return fc2_->forward(activation_(fc1_->forward(y))); };
    if (norm_before_) {
      const at::Tensor attended = x + self_attn_->forward(self_attn_layer_norm_->forward(x), attention);
      return attended + feed_forward(final_layer_norm_->forward(attended));
    }
    const at::Tensor attended = self_attn_layer_norm_->forward(x + self_attn_->forward(x, attention));
    return final_layer_norm_->forward(attended + feed_forward(attended));
  }

 private:
  bool norm_before_;
  Activation activation_;
  std::shared_ptr<SelfAttention> self_attn_;
  std::shared_ptr<LayerNorm> self_attn_layer_norm_;
  std::shared_ptr<Linear> fc1_;
  std::shared_ptr<Linear> fc2_;
  std::shared_ptr<LayerNorm> final_layer_norm_;
};

class OPTDecoder : public ScopedModule {
 public:
  explicit OPTDecoder(const OptConfig& c)
      : ScopedModule("OPTDecoder"),
        embed_tokens_(child<Embedding>("embed_tokens", c.vocab, c.embedding, c.dtype, c.padding)),
        embed_positions_(child<OPTLearnedPositionalEmbedding>("embed_positions", c)) {
    if (c.embedding != c.hidden) {
      project_in_ = child<Linear>("project_in", c.embedding, c.hidden, false, c.dtype);
    }
    for (int64_t i = 0; i < c.layers; ++i) {
      layers_.push_back(item<OPTDecoderLayer>("layers", i, c, i));
    }
    if (c.final_norm) {
      final_layer_norm_ = child<LayerNorm>("final_layer_norm", c.hidden, kEps, c.dtype, c.affine);
    }
    if (c.embedding != c.hidden) {
      project_out_ = child<Linear>("project_out", c.hidden, c.embedding, false, c.dtype);
    }
  }

  at::Tensor forward(const Tokens& tokens, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    at::Tensor words = embed_tokens_->forward(tokens.input_ids);
    if (project_in_ != nullptr) {
      words = project_in_->forward(words);
    }
    at::Tensor x = words + embed_positions_->forward(tokens.positions);
    for (const auto& layer : layers_) {
      x = layer->forward(x, attention);
    }
    x = tokens.select(x);
    if (final_layer_norm_ != nullptr) {
      x = final_layer_norm_->forward(x);
    }
    return project_out_ == nullptr ? x : project_out_->forward(x);
  }

  const at::Tensor& embedding() const { return embed_tokens_->weight(); }

 private:
  std::shared_ptr<Embedding> embed_tokens_;
  std::shared_ptr<OPTLearnedPositionalEmbedding> embed_positions_;
  std::shared_ptr<Linear> project_in_;
  std::vector<std::shared_ptr<OPTDecoderLayer>> layers_;
  std::shared_ptr<LayerNorm> final_layer_norm_;
  std::shared_ptr<Linear> project_out_;
};

class OPTModel : public ScopedModule {
 public:
  explicit OPTModel(const OptConfig& c) : ScopedModule("OPTModel"), decoder_(child<OPTDecoder>("decoder", c)) {}

  at::Tensor forward(const Tokens& tokens, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    return decoder_->forward(tokens, attention);
  }

  const at::Tensor& embedding() const { return decoder_->embedding(); }

 private:
  std::shared_ptr<OPTDecoder> decoder_;
};

std::shared_ptr<Decoder> build_opt(const Config& config, at::ScalarType dtype, bool tied) {
  const OptConfig c = read_opt(config, dtype);
  const Head head{c.embedding, c.vocab, tied};
  auto model = std::make_shared<CausalModel<OPTModel>>("OPTForCausalLM", "model", head, dtype, c);
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  for (int64_t i = 0; i < c.layers; ++i) {
    model->attention_layers.push_back({fmt::format("model.decoder.layers.{}.self_attn", i), scale});
  }
  model->kv_heads = c.heads;
  model->head_dim = c.head_dim;
  model->max_positions = c.positions;
  model->bounded_positions = true;
  model->positions_follow_mask = true;
  return model;
}

constexpr std::array<std::string_view, 2> kArchitectures = {"OPTForCausalLM", "OPTModel"};
constexpr std::array<std::string_view, 1> kIgnored = {"*decoder.version"};

}  // namespace

const Family kOpt = {
    .model_type = "opt",
    .architectures = kArchitectures,
    .build = build_opt,
    .base_prefix = "model.",
    .embedding = "model.decoder.embed_tokens.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .tied_by_default = true,
    .default_eos = 2,
};

}  // namespace shardpipe::hf
