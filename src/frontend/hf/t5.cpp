// T5 (transformers' modeling_t5.py): encoder and decoder with relative position biases, norms without mean.
#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "frontend/hf/encoder_decoder.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"
#include "frontend/hf/t5_config.h"

namespace shardpipe::hf {
namespace {

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

// How the tokens of a stack attend: what a program decides. Tokens are [batch, seq] or packed: "...".
class Attending {
 public:
  virtual ~Attending() = default;
  // Of the stack's layer: q, k and v [..., heads * head_dim] -> [..., heads * head_dim]; to the stack's own tokens or,
  // in cross attention, to those of the encoder.
  virtual at::Tensor attend(
      int64_t layer, bool crossed, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const = 0;
};

// Of rows of one length. `added` goes to the unscaled scores of self attention, `added_to_crossed` to those of cross
// attention.
class PlainAttending : public Attending {
 public:
  PlainAttending(int64_t heads, at::Tensor added, at::Tensor added_to_crossed)
      : heads_(heads), added_(std::move(added)), added_to_crossed_(std::move(added_to_crossed)) {}

  at::Tensor attend(
      int64_t /*layer*/, bool crossed, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const override {
    const at::Tensor queries = heads_first(q, heads_);
    const at::Tensor keys = heads_first(k, heads_);
    const at::Tensor values = heads_first(v, heads_);
    // Not scaled_dot_product_attention: on the CPU it gives no gradient to what is added.
    const at::Tensor scores = at::matmul(queries, keys.transpose(2, 3)) + (crossed ? added_to_crossed_ : added_);
    return join_heads(at::matmul(at::softmax(scores, -1), values));
  }

 private:
  int64_t heads_;
  at::Tensor added_;
  at::Tensor added_to_crossed_;
};

// Of packed tokens, through caches in the decoder.
class PackedAttending : public Attending {
 public:
  PackedAttending(const PackedStep& step, bool decoder, int64_t head_dim, RelativeBias bias)
      : step_(step), decoder_(decoder), head_dim_(head_dim), bias_(std::move(bias)) {}

  at::Tensor attend(
      int64_t layer, bool crossed, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const override {
    const at::Tensor queries = split_heads(q, head_dim_);
    const at::Tensor keys = split_heads(k, head_dim_);
    const at::Tensor values = split_heads(v, head_dim_);
    if (crossed) {
      return step_.to_source(layer, queries, keys, values, 1.0);
    }
    return decoder_ ? step_.to_past(layer, queries, keys, values, 1.0, bias_)
                    : step_.among_source(queries, keys, values, 1.0, bias_);
  }

 private:
  const PackedStep& step_;
  bool decoder_;
  int64_t head_dim_;
  RelativeBias bias_;
};

class T5Attention : public ScopedModule {
 public:
  T5Attention(const T5Config& c, bool has_bias)
      : ScopedModule("T5Attention"),
        q_(child<Linear>("q", c.hidden, c.heads * c.head_dim, false, c.dtype)),
        k_(child<Linear>("k", c.hidden, c.heads * c.head_dim, false, c.dtype)),
        v_(child<Linear>("v", c.hidden, c.heads * c.head_dim, false, c.dtype)),
        o_(child<Linear>("o", c.heads * c.head_dim, c.hidden, false, c.dtype)),
        bias_(has_bias ? child<Embedding>("relative_attention_bias", c.buckets, c.heads, c.dtype) : nullptr) {}

  // x [..., hidden] attends to `source` [..., hidden] of the encoder, or to itself where that is null.
  at::Tensor forward(int64_t layer, const at::Tensor& x, const at::Tensor* source, const Attending& attending) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor& keys = source == nullptr ? x : *source;
    // The three products first: passes join neighbours that read the same input.
    const at::Tensor q = q_->forward(x);
    const at::Tensor k = k_->forward(keys);
    const at::Tensor v = v_->forward(keys);
    return o_->forward(attending.attend(layer, source != nullptr, q, k, v));
  }

  // [1, heads, queries, keys] of bucket numbers [queries, keys].
  at::Tensor bias(const at::Tensor& buckets) const {
    const trace::ModuleScope scope = enter();
    return bias_->forward(buckets).permute({2, 0, 1}).unsqueeze(0);
  }
  const at::Tensor& bias_table() const { return bias_->weight(); }

 private:
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
  at::Tensor forward(int64_t layer, const at::Tensor& x, const at::Tensor* source, const Attending& attending) const {
    const trace::ModuleScope scope = enter();
    return x + attention_->forward(layer, norm_->forward(x), source, attending);
  }

  at::Tensor bias(const at::Tensor& buckets) const {
    const trace::ModuleScope scope = enter();
    return attention_->bias(buckets);
  }
  const at::Tensor& bias_table() const { return attention_->bias_table(); }

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

class T5Block : public ScopedModule {
 public:
  T5Block(const T5Config& c, int64_t layer, bool decoder)
      : ScopedModule("T5Block"),
        layer_(layer),
        self_(item<T5LayerAttention>("layer", 0, "T5LayerSelfAttention", "SelfAttention", c, layer == 0)),
        cross_(
            decoder ? item<T5LayerAttention>("layer", 1, "T5LayerCrossAttention", "EncDecAttention", c, false)
                    : nullptr),
        dense_(item<T5LayerFF>("layer", decoder ? 2 : 1, c)) {}

  // `source`: the encoder's hidden states, in the decoder.
  at::Tensor forward(const at::Tensor& x, const at::Tensor* source, const Attending& attending) const {
    const trace::ModuleScope scope = enter();
    at::Tensor hidden = self_->forward(layer_, x, nullptr, attending);
    if (cross_ != nullptr) {
      hidden = cross_->forward(layer_, hidden, source, attending);
    }
    return dense_->forward(hidden);
  }

  at::Tensor bias(const at::Tensor& buckets) const {
    const trace::ModuleScope scope = enter();
    return self_->bias(buckets);
  }
  const at::Tensor& bias_table() const { return self_->bias_table(); }

 private:
  int64_t layer_;
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
      blocks_.push_back(item<T5Block>("block", i, c, i, decoder));
    }
    bias_rows_ = register_buffer("bias_rows", t5_bucket_line(!decoder, c));
    norm_ = child<RmsNorm>("final_layer_norm", "T5LayerNorm", c.hidden, c.eps, c.dtype);
  }

  // Of rows of one length. `source` and its mask: the encoder's, in the decoder.
  at::Tensor forward(
      const at::Tensor& ids,
      const at::Tensor& mask,
      const at::Tensor* source = nullptr,
      const at::Tensor& source_mask = {}) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor x = embed_->forward(ids);
    const at::Tensor distance = distances(ids);
    at::Tensor seen = attended(mask);
    if (decoder_) {
      seen = seen.logical_and(distance.le(0));
    }
    const at::Tensor bias = blocks_.front()->bias(t5_buckets(distance, !decoder_, config_));
    const at::Tensor added = masked(seen, bias);
    at::Tensor added_to_crossed;
    if (source != nullptr) {
      added_to_crossed = masked(attended(source_mask), at::zeros({}, x.options()));
    }
    return norm_->forward(run_blocks(x, source, PlainAttending(config_.heads, added, added_to_crossed)));
  }

  // Of packed tokens: in the encoder all of them, in the decoder the wanted ones.
  at::Tensor generate(const PackedStep& step, const at::Tensor* source = nullptr) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor x = embed_->forward(decoder_ ? step.tokens.input_ids : step.source_ids);
    const RelativeBias bias{blocks_.front()->bias_table(), bias_rows_};
    const at::Tensor hidden = run_blocks(x, source, PackedAttending(step, decoder_, config_.head_dim, bias));
    return norm_->forward(decoder_ ? step.tokens.select(hidden) : hidden);
  }

 private:
  at::Tensor run_blocks(const at::Tensor& x, const at::Tensor* source, const Attending& attending) const {
    at::Tensor hidden = x;
    for (const auto& block : blocks_) {
      hidden = block->forward(hidden, source, attending);
    }
    return hidden;
  }

  T5Config config_;
  bool decoder_;
  std::shared_ptr<Embedding> embed_;
  std::vector<std::shared_ptr<T5Block>> blocks_;
  std::shared_ptr<RmsNorm> norm_;
  at::Tensor bias_rows_;
};

class T5ForConditionalGeneration : public EncoderDecoder {
 public:
  T5ForConditionalGeneration(const T5Config& c, bool tie)
      : EncoderDecoder("T5ForConditionalGeneration"),
        scale_(c.scaled_output ? 1.0 / std::sqrt(static_cast<double>(c.hidden)) : 1.0),
        shared_(child<Embedding>("shared", c.vocab, c.hidden, c.dtype)),
        encoder_(child<T5Stack>("encoder", c, shared_->weight(), false)),
        decoder_(child<T5Stack>("decoder", c, shared_->weight(), true)),
        lm_head_(
            tie ? child<Linear>("lm_head", shared_->weight(), false)
                : child<Linear>("lm_head", c.hidden, c.vocab, false, c.dtype)) {}

  trace::NamedOutputs forward(const std::vector<at::Tensor>& tensors) override {
    const at::Tensor source = encoder_->forward(tensors[0], tensors[1]);
    return {{"logits", head(decoder_->forward(tensors[2], tensors[3], &source, tensors[1]))}};
  }

  at::Tensor generate(const PackedStep& step) override {
    const at::Tensor source = encoder_->generate(step);
    return head(decoder_->generate(step, &source));
  }

 private:
  at::Tensor head(const at::Tensor& hidden) const {
    return lm_head_->forward(scale_ == 1.0 ? hidden : hidden * scale_);
  }

  double scale_;
  std::shared_ptr<Embedding> shared_;
  std::shared_ptr<T5Stack> encoder_;
  std::shared_ptr<T5Stack> decoder_;
  std::shared_ptr<Linear> lm_head_;
};

std::shared_ptr<EncoderDecoder> build_t5(
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
  for (int64_t i = 0; i < t5.decoder_layers; ++i) {
    const std::string block = fmt::format("decoder.block.{}.layer.", i);
    model->caches.push_back({block + "0.SelfAttention", block + "1.EncDecAttention"});
  }
  model->heads = t5.heads;
  model->head_dim = t5.head_dim;
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
    .build_encoder_decoder = build_t5,
    .base_prefix = "transformer.",
    .embedding = "shared.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .other_names = kOtherNames,
    .tied_by_default = true,
    .default_eos = 1,
};

}  // namespace shardpipe::hf
