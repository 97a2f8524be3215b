// T5 (transformers' modeling_t5.py): encoder and decoder with relative position biases, norms without mean.
#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "frontend/hf/encoder.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

struct T5Config {
  int64_t encoder_layers;
  int64_t decoder_layers;
  int64_t hidden;
  int64_t inner;
  int64_t heads;
  int64_t head_dim;
  int64_t vocab;
  int64_t buckets;
  int64_t max_distance;
  double eps;
  bool gated;
  bool scaled_output;
  Activation activation;
  at::ScalarType dtype;
};

// "relu", or "gated-gelu" with two projections; the latter means the approximation by tanh.
Activation read_activation(const Config& config, bool& gated) {
  const std::string text = config.string("feed_forward_proj", "relu");
  gated = text.starts_with("gated-");
  std::string name = gated ? text.substr(std::string("gated-").size()) : text;
  if (gated && name == "gelu") {
    name = "gelu_new";
  }
  return find_activation(Config(Json{{"feed_forward_proj", name}}, config.where()), "feed_forward_proj", "relu");
}

T5Config read_t5(const Config& config, at::ScalarType dtype) {
  T5Config t5{};
  t5.dtype = dtype;
  t5.encoder_layers = config.integer({"num_layers", "num_hidden_layers"}, 1, kMaxLayers, 6);
  t5.decoder_layers = config.integer("num_decoder_layers", 1, kMaxLayers, t5.encoder_layers);
  t5.hidden = config.integer({"d_model", "hidden_size"}, 1, kMaxFeatures, 512);
  t5.inner = config.integer("d_ff", 1, kMaxFeatures, 2048);
  t5.heads = config.integer({"num_heads", "num_attention_heads"}, 1, kMaxHeads, 8);
  t5.head_dim = config.integer({"d_kv", "head_dim"}, 1, kMaxHeadDim, 64);
  t5.vocab = config.integer("vocab_size", 1, kMaxVocabulary, 32128);
  t5.buckets = config.integer("relative_attention_num_buckets", 4, kMaxFeatures, 32);
  t5.max_distance = config.integer("relative_attention_max_distance", 1, kMaxPositionCount, 128);
  if (t5.max_distance <= t5.buckets / 2) {
    throw_input(
        "{}; more than half of the {} buckets is expected", config.subject("relative_attention_max_distance"),
        t5.buckets);
  }
  t5.eps = config.number("layer_norm_epsilon", 0.0, 1.0, 1e-6);
  t5.activation = read_activation(config, t5.gated);
  // T5 ties the head and scales what goes in; T5 1.1 says that it does not tie, and does not scale. transformers 5
  // writes the two apart.
  t5.scaled_output = config.boolean("scale_decoder_outputs", config.boolean("tie_word_embeddings", true));
  if (dtype == at::kHalf) {
    throw Error(
        ErrorCode::usage, "T5 does not run in float16: its hidden states exceed that type's range",
        "use --dtype bfloat16 or float32");
  }
  return t5;
}

// positions [keys] - [queries, 1] -> bucket numbers [queries, keys]: one each for short distances, then by the
// logarithm. The operations are transformers' own, since a rounding decides between two buckets.
at::Tensor buckets_of(const at::Tensor& distance, bool bidirectional, const T5Config& c) {
  int64_t buckets = c.buckets;
  at::Tensor base;
  at::Tensor steps;
  if (bidirectional) {
    buckets /= 2;
    base = distance.gt(0).to(at::kLong) * buckets;
    steps = distance.abs();
  } else {
    steps = distance.clamp_max(0).neg();
  }
  const int64_t exact = buckets / 2;
  const double range = std::log(static_cast<double>(c.max_distance) / static_cast<double>(exact));
  const at::Tensor part = at::log(steps.to(at::kFloat) / exact) / range * (buckets - exact);
  const at::Tensor far = (part.to(at::kLong) + exact).clamp_max(buckets - 1);
  const at::Tensor bucket = at::where(steps.lt(exact), steps, far);
  return base.defined() ? base + bucket : bucket;
}

// [keys] - [queries, 1]: distance of each key from each query.
at::Tensor distances(const at::Tensor& ids) {
  const at::Tensor positions = at::arange(ids.size(1), ids.options());
  return positions.unsqueeze(0) - positions.unsqueeze(1);
}

// What is added to scores, [1 or batch, 1 or heads, queries, keys]: the bias where `mask` is true, else the lowest
// number, as transformers do.
at::Tensor masked(const at::Tensor& mask, const at::Tensor& bias) {
  const double lowest = bias.scalar_type() == at::kDouble ? std::numeric_limits<double>::lowest()
                        : bias.scalar_type() == at::kFloat
                            ? static_cast<double>(std::numeric_limits<float>::lowest())
                            : static_cast<double>(std::numeric_limits<at::BFloat16>::lowest());
  return at::where(mask, bias, lowest);
}

class T5Attention : public ScopedModule {
 public:
  T5Attention(const T5Config& c, bool has_bias)
      : ScopedModule("T5Attention"),
        heads_(c.heads),
        q_(child<Linear>("q", c.hidden, c.heads * c.head_dim, false, c.dtype)),
        k_(child<Linear>("k", c.hidden, c.heads * c.head_dim, false, c.dtype)),
        v_(child<Linear>("v", c.hidden, c.heads * c.head_dim, false, c.dtype)),
        o_(child<Linear>("o", c.heads * c.head_dim, c.hidden, false, c.dtype)),
        bias_(has_bias ? child<Embedding>("relative_attention_bias", c.buckets, c.heads, c.dtype) : nullptr) {}

  // x [batch, queries, hidden] attends to `source` [batch, keys, hidden]; `added` goes to the unscaled scores.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& source, const at::Tensor& added) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor q = heads_first(q_->forward(x), heads_);
    const at::Tensor k = heads_first(k_->forward(source), heads_);
    const at::Tensor v = heads_first(v_->forward(source), heads_);
    // Not scaled_dot_product_attention: on the CPU it gives no gradient to what is added.
    const at::Tensor scores = at::matmul(q, k.transpose(2, 3)) + added;
    return o_->forward(join_heads(at::matmul(at::softmax(scores, -1), v)));
  }

  // [1, heads, queries, keys] of bucket numbers [queries, keys].
  at::Tensor bias(const at::Tensor& buckets) const {
    const trace::ModuleScope scope = enter();
    return bias_->forward(buckets).permute({2, 0, 1}).unsqueeze(0);
  }

 private:
  int64_t heads_;
  std::shared_ptr<Linear> q_;
  std::shared_ptr<Linear> k_;
  std::shared_ptr<Linear> v_;
  std::shared_ptr<Linear> o_;
  std::shared_ptr<Embedding> bias_;
};

class T5LayerAttention : public ScopedModule {
 public:
  T5LayerAttention(const char* class_name, const char* name, const T5Config& c, bool has_bias)
      : ScopedModule(class_name),
        attention_(child<T5Attention>(name, c, has_bias)),
        norm_(child<RmsNorm>("layer_norm", "T5LayerNorm", c.hidden, c.eps, c.dtype)) {}

  // `source`: of cross attention.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& added, const at::Tensor* source = nullptr) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor normed = norm_->forward(x);
    return x + attention_->forward(normed, source == nullptr ? normed : *source, added);
  }

  at::Tensor bias(const at::Tensor& buckets) const {
    const trace::ModuleScope scope = enter();
    return attention_->bias(buckets);
  }

 private:
  std::shared_ptr<T5Attention> attention_;
  std::shared_ptr<RmsNorm> norm_;
};

// T5DenseActDense and T5DenseGatedActDense.
class T5Dense : public ScopedModule {
 public:
  explicit T5Dense(const T5Config& c)
      : ScopedModule(c.gated ? "T5DenseGatedActDense" : "T5DenseActDense"),
        activation_(c.activation),
        wi_(child<Linear>(c.gated ? "wi_0" : "wi", c.hidden, c.inner, false, c.dtype)),
        gate_(c.gated ? child<Linear>("wi_1", c.hidden, c.inner, false, c.dtype) : nullptr),
        wo_(child<Linear>("wo", c.inner, c.hidden, false, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor active = activation_(wi_->forward(x));
    return wo_->forward(gate_ == nullptr ? active : active * gate_->forward(x));
  }

 private:
  Activation activation_;
  std::shared_ptr<Linear> wi_;
  std::shared_ptr<Linear> gate_;
  std::shared_ptr<Linear> wo_;
};

class T5LayerFF : public ScopedModule {
 public:
  explicit T5LayerFF(const T5Config& c)
      : ScopedModule("T5LayerFF"),
        dense_(child<T5Dense>("DenseReluDense", c)),
        norm_(child<RmsNorm>("layer_norm", "T5LayerNorm", c.hidden, c.eps, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x) const {
    const trace::ModuleScope scope = enter();
    return x + dense_->forward(norm_->forward(x));
  }

 private:
  std::shared_ptr<T5Dense> dense_;
  std::shared_ptr<RmsNorm> norm_;
};

// What the layers of a stack share.
struct Context {
  at::Tensor added;             // to the scores of self attention
  const at::Tensor* source;     // the encoder's hidden states, in the decoder
  at::Tensor added_to_crossed;  // to those of cross attention
};

class T5Block : public ScopedModule {
 public:
  T5Block(const T5Config& c, bool decoder, bool has_bias)
      : ScopedModule("T5Block"),
        self_(item<T5LayerAttention>("layer", 0, "T5LayerSelfAttention", "SelfAttention", c, has_bias)),
        cross_(
            decoder ? item<T5LayerAttention>("layer", 1, "T5LayerCrossAttention", "EncDecAttention", c, false)
                    : nullptr),
        dense_(item<T5LayerFF>("layer", decoder ? 2 : 1, c)) {}

  at::Tensor forward(const at::Tensor& x, const Context& context) const {
    const trace::ModuleScope scope = enter();
    at::Tensor hidden = self_->forward(x, context.added);
    if (cross_ != nullptr) {
      hidden = cross_->forward(hidden, context.added_to_crossed, context.source);
    }
    return dense_->forward(hidden);
  }

  at::Tensor bias(const at::Tensor& buckets) const {
    const trace::ModuleScope scope = enter();
    return self_->bias(buckets);
  }

 private:
  std::shared_ptr<T5LayerAttention> self_;
  std::shared_ptr<T5LayerAttention> cross_;
  std::shared_ptr<T5LayerFF> dense_;
};

class T5Stack : public ScopedModule {
 public:
  T5Stack(const T5Config& c, const at::Tensor& words, bool decoder)
      : ScopedModule("T5Stack"), config_(c), decoder_(decoder), embed_(child<Embedding>("embed_tokens", words)) {
    const int64_t layers = decoder ? c.decoder_layers : c.encoder_layers;
    for (int64_t i = 0; i < layers; ++i) {
      blocks_.push_back(item<T5Block>("block", i, c, decoder, i == 0));
    }
    norm_ = child<RmsNorm>("final_layer_norm", "T5LayerNorm", c.hidden, c.eps, c.dtype);
  }

  // `source` and its mask: the encoder's, in the decoder.
  at::Tensor forward(
      const at::Tensor& ids,
      const at::Tensor& mask,
      const at::Tensor* source = nullptr,
      const at::Tensor& source_mask = {}) const {
    const trace::ModuleScope scope = enter();
    at::Tensor x = embed_->forward(ids);
    const at::Tensor distance = distances(ids);
    at::Tensor seen = attended(mask);
    if (decoder_) {
      seen = seen.logical_and(distance.le(0));
    }
    const at::Tensor bias = blocks_.front()->bias(buckets_of(distance, !decoder_, config_));
    Context context{masked(seen, bias), source, {}};
    if (source != nullptr) {
      const at::Tensor none = at::zeros({}, x.options());
      context.added_to_crossed = masked(attended(source_mask), none);
    }
    for (const auto& block : blocks_) {
      x = block->forward(x, context);
    }
    return norm_->forward(x);
  }

 private:
  T5Config config_;
  bool decoder_;
  std::shared_ptr<Embedding> embed_;
  std::vector<std::shared_ptr<T5Block>> blocks_;
  std::shared_ptr<RmsNorm> norm_;
};

class T5ForConditionalGeneration : public ForwardModel {
 public:
  T5ForConditionalGeneration(const T5Config& c, bool tie)
      : ForwardModel("T5ForConditionalGeneration"),
        scale_(c.scaled_output ? 1.0 / std::sqrt(static_cast<double>(c.hidden)) : 1.0),
        shared_(child<Embedding>("shared", c.vocab, c.hidden, c.dtype)),
        encoder_(child<T5Stack>("encoder", c, shared_->weight(), false)),
        decoder_(child<T5Stack>("decoder", c, shared_->weight(), true)),
        lm_head_(
            tie ? child<Linear>("lm_head", shared_->weight(), false)
                : child<Linear>("lm_head", c.hidden, c.vocab, false, c.dtype)) {}

  trace::NamedOutputs forward(const std::vector<at::Tensor>& tensors) override {
    const at::Tensor source = encoder_->forward(tensors[0], tensors[1]);
    const at::Tensor hidden = decoder_->forward(tensors[2], tensors[3], &source, tensors[1]);
    return {{"logits", lm_head_->forward(scale_ == 1.0 ? hidden : hidden * scale_)}};
  }

 private:
  double scale_;
  std::shared_ptr<Embedding> shared_;
  std::shared_ptr<T5Stack> encoder_;
  std::shared_ptr<T5Stack> decoder_;
  std::shared_ptr<Linear> lm_head_;
};

std::shared_ptr<ForwardModel> build_t5(
    const Config& config, at::ScalarType dtype, bool tied, const checkpoint::Checkpoint* weights) {
  const T5Config t5 = read_t5(config, dtype);
  // A head that the checkpoint lacks is tied, whatever config.json says.
  const bool tie = tied || (weights != nullptr && !weights->contains("lm_head.weight"));
  const auto model = std::make_shared<T5ForConditionalGeneration>(t5, tie);
  model->inputs = {
      ids_input("input_ids"), ids_input("attention_mask"), ids_input("decoder_input_ids", "decoder_seq"),
      ids_input("decoder_attention_mask", "decoder_seq")};
  model->optional_inputs = {{"attention_mask", "input_ids", 1}, {"decoder_attention_mask", "decoder_input_ids", 1}};
  model->id_limits = {{"input_ids", t5.vocab}, {"decoder_input_ids", t5.vocab}};
  model->vocab_size = t5.vocab;
  model->max_positions = kMaxPositionCount;  // distances have no end
  return model;
}

constexpr std::array<std::string_view, 2> kArchitectures = {"T5ForConditionalGeneration", "T5WithLMHeadModel"};
// Older versions saved one for cross attention, which nothing used.
constexpr std::array<std::string_view, 1> kIgnored = {"*.EncDecAttention.relative_attention_bias.weight"};
constexpr std::array<OtherName, 2> kOtherNames = {
    {{"shared.weight", "encoder.embed_tokens.weight"}, {"shared.weight", "decoder.embed_tokens.weight"}}};

}  // namespace

const Family kT5 = {
    .model_type = "t5",
    .architectures = kArchitectures,
    .build_forward = build_t5,
    .base_prefix = "transformer.",
    .embedding = "shared.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .other_names = kOtherNames,
    .encoder_decoder = true,
    .tied_by_default = true,
    .default_eos = 1,
};

}  // namespace shardpipe::hf
