#include "frontend/hf/t5_config.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "frontend/hf/limits.h"

namespace shardpipe::hf {
namespace {

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

}  // namespace

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
  t5.max_distance = config.integer("relative_attention_max_distance", 1, kMaxDistance, 128);
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

// The operations are transformers' own, since a rounding decides between two buckets.
at::Tensor t5_buckets(const at::Tensor& distance, bool bidirectional, const T5Config& c) {
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

at::Tensor t5_bucket_line(bool bidirectional, const T5Config& c) {
  return t5_buckets(at::arange(-c.max_distance, c.max_distance + 1, at::kLong), bidirectional, c);
}

}  // namespace shardpipe::hf
