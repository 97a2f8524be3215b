#include "kernels/checks.h"

#include <fmt/ranges.h>

#include "base/error.h"

namespace shardpipe::kernels {
namespace {

void check_same_kind(std::string_view op, const at::Tensor& x, std::string_view name, const at::Tensor& other) {
  if (other.scalar_type() != x.scalar_type() || other.device() != x.device()) {
    throw_usage(
        "{}: {} is {} on {}, the input is {} on {}", op, name, describe(other), other.device().str(), describe(x),
        x.device().str());
  }
}

// q [tokens, heads, head_dim] with k and v [keys, kv_heads, head_dim].
void check_heads(std::string_view op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const char* keys) {
  if (q.dim() != 3 || k.dim() != 3 || k.sizes() != v.sizes() || k.size(2) != q.size(2)) {
    throw_usage(
        "{}: expected q [tokens, heads, head_dim] and k, v [{}, kv_heads, head_dim], got {}, {} and {}", op, keys,
        describe(q), describe(k), describe(v));
  }
  if (k.size(1) < 1 || q.size(1) % k.size(1) != 0) {
    throw_usage("{}: {} heads are not a multiple of {} K/V heads", op, q.size(1), k.size(1));
  }
  check_same_kind(op, q, "k", k);
  check_same_kind(op, q, "v", v);
}

// The same with as many keys as queries.
void check_one_sequence(std::string_view op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  check_heads(op, q, k, v, "tokens");
  if (k.size(0) != q.size(0)) {
    throw_usage("{}: {} queries but {} keys: a token has one of each", op, q.size(0), k.size(0));
  }
}

void check_caches(std::string_view op, const at::Tensor& k, const at::Tensor& k_cache, const at::Tensor& v_cache) {
  if (k_cache.dim() != 4 || k_cache.sizes() != v_cache.sizes() || k_cache.size(1) != k.size(1) ||
      k_cache.size(3) != k.size(2)) {
    throw_usage(
        "{}: expected caches [slots, {}, capacity, {}], got {} and {}", op, k.size(1), k.size(2), describe(k_cache),
        describe(v_cache));
  }
  check_same_kind(op, k, "the K cache", k_cache);
  check_same_kind(op, k, "the V cache", v_cache);
}

bool are_numbers(const at::Tensor& tensor, int64_t count) {
  return tensor.dim() == 1 && tensor.size(0) == count && tensor.scalar_type() == at::kLong;
}

}  // namespace

std::string describe(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return "undefined";
  }
  std::string dtype;
  switch (tensor.scalar_type()) {
    case at::kFloat:
      dtype = "float32";
      break;
    case at::kDouble:
      dtype = "float64";
      break;
    case at::kBFloat16:
      dtype = "bfloat16";
      break;
    case at::kHalf:
      dtype = "float16";
      break;
    case at::kLong:
      dtype = "int64";
      break;
    case at::kInt:
      dtype = "int32";
      break;
    default:
      dtype = c10::toString(tensor.scalar_type());
  }
  return fmt::format("{} [{}]", dtype, fmt::join(tensor.sizes(), ", "));
}

Activation parse_activation(std::string_view name) {
  if (name == "silu") {
    return Activation::silu;
  }
  if (name == "gelu") {
    return Activation::gelu;
  }
  if (name == "gelu_tanh") {
    return Activation::gelu_tanh;
  }
  if (name == "relu") {
    return Activation::relu;
  }
  throw_usage("linear_gated: unknown activation '{}': expected silu, gelu, gelu_tanh or relu", name);
}

void check_many(std::string_view op, std::string_view many) {
  if (many != "onednn" && many != "aten") {
    throw_usage("{}: unknown choice '{}' for many rows: expected onednn or aten", op, many);
  }
}

void check_linear(
    std::string_view op, const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (x.dim() < 1 || weight.dim() != 2 || x.size(-1) != weight.size(1)) {
    throw_usage("{}: expected x [..., in] and weight [out, in], got {} and {}", op, describe(x), describe(weight));
  }
  check_same_kind(op, x, "the weight", weight);
  if (bias.has_value() && bias->defined()) {
    if (bias->dim() != 1 || bias->size(0) != weight.size(0)) {
      throw_usage("{}: expected a bias of {} values, got {}", op, weight.size(0), describe(*bias));
    }
    check_same_kind(op, x, "the bias", *bias);
  }
}

void check_linear_group(
    const at::Tensor& x, at::TensorList weights, const c10::List<std::optional<at::Tensor>>& biases) {
  if (!biases.empty() && biases.size() != weights.size()) {
    throw_usage("linear_group: {} weights but {} biases", weights.size(), biases.size());
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    check_linear("linear_group", x, weights[i], bias_of(biases, i));
  }
}

void check_linear_gated(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const std::optional<at::Tensor>& gate_bias,
    const std::optional<at::Tensor>& up_bias) {
  check_linear("linear_gated", x, gate, gate_bias);
  check_linear("linear_gated", x, up, up_bias);
  if (gate.size(0) != up.size(0)) {
    throw_usage("linear_gated: gate and up differ: {} and {}", describe(gate), describe(up));
  }
}

void check_rms_norm(std::string_view op, const at::Tensor& x, const at::Tensor* residual, const at::Tensor& weight) {
  if (x.dim() < 1 || weight.dim() != 1 || x.size(-1) != weight.size(0)) {
    throw_usage("{}: expected x [..., hidden] and weight [hidden], got {} and {}", op, describe(x), describe(weight));
  }
  if (residual != nullptr && (residual->sizes() != x.sizes() || residual->scalar_type() != x.scalar_type())) {
    throw_usage("{}: x is {}, the residual is {}", op, describe(x), describe(*residual));
  }
}

void check_rotary(std::string_view op, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (x.dim() < 3 || cos.dim() != 2 || cos.sizes() != sin.sizes() || cos.size(0) != x.size(-3) ||
      2 * cos.size(1) > x.size(-1)) {
    throw_usage(
        "{}: expected x [..., tokens, heads, head_dim] and cos, sin [tokens, rotary_dim / 2] with rotary_dim <= "
        "head_dim, "
        "got {}, {} and {}",
        op, describe(x), describe(cos), describe(sin));
  }
  if (cos.scalar_type() != at::kFloat || sin.scalar_type() != at::kFloat) {
    throw_usage("{}: cos and sin must be float32, got {} and {}", op, describe(cos), describe(sin));
  }
}

void check_cached_attention(
    std::string_view op,
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& positions,
    std::optional<int64_t> window,
    const std::optional<at::Tensor>& slopes) {
  check_one_sequence(op, q, k, v);
  check_caches(op, k, k_cache, v_cache);
  if (!are_numbers(slots, q.size(0)) || !are_numbers(positions, q.size(0))) {
    throw_usage(
        "{}: expected slots and positions int64 [{}], got {} and {}", op, q.size(0), describe(slots),
        describe(positions));
  }
  if (window && *window < 1) {
    throw_usage("{}: the window is {} positions, at least 1 is expected", op, *window);
  }
  if (slopes && (slopes->dim() != 1 || slopes->size(0) != q.size(1) || slopes->scalar_type() != at::kFloat)) {
    throw_usage("{}: expected slopes float32 [{}], got {}", op, q.size(1), describe(*slopes));
  }
}

void check_cross_attention(
    std::string_view op,
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& source_slots,
    const at::Tensor& source_positions,
    const at::Tensor& lengths) {
  check_heads(op, q, k, v, "sources");
  check_caches(op, k, k_cache, v_cache);
  if (!are_numbers(slots, q.size(0))) {
    throw_usage("{}: expected slots int64 [{}], got {}", op, q.size(0), describe(slots));
  }
  if (!are_numbers(source_slots, k.size(0)) || !are_numbers(source_positions, k.size(0))) {
    throw_usage(
        "{}: expected source_slots and source_positions int64 [{}], got {} and {}", op, k.size(0),
        describe(source_slots), describe(source_positions));
  }
  if (!are_numbers(lengths, k_cache.size(0))) {
    throw_usage("{}: expected lengths int64 [{}], got {}", op, k_cache.size(0), describe(lengths));
  }
}

void check_sequence_attention(
    std::string_view op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& slots) {
  check_one_sequence(op, q, k, v);
  if (!are_numbers(slots, q.size(0))) {
    throw_usage("{}: expected slots int64 [{}], got {}", op, q.size(0), describe(slots));
  }
}

void check_bias(
    std::string_view op,
    const at::Tensor& q,
    const std::optional<at::Tensor>& bias,
    const std::optional<at::Tensor>& bias_rows) {
  if (bias.has_value() != bias_rows.has_value()) {
    throw_usage("{}: bias and bias_rows go together, one is missing", op);
  }
  if (!bias) {
    return;
  }
  if (bias->dim() != 2 || bias->size(1) != q.size(1) || bias->scalar_type() != q.scalar_type()) {
    throw_usage("{}: expected a bias [rows, {}] of the input's dtype, got {}", op, q.size(1), describe(*bias));
  }
  if (bias_rows->dim() != 1 || bias_rows->size(0) % 2 == 0 || bias_rows->scalar_type() != at::kLong) {
    throw_usage("{}: expected bias_rows int64 of an odd length, got {}", op, describe(*bias_rows));
  }
}

int64_t source_length(std::string_view op, const at::Tensor& lengths, int64_t slot, int64_t capacity) {
  const int64_t length = lengths.const_data_ptr<int64_t>()[slot];
  if (length < 1 || length > capacity) {
    throw_usage("{}: the source of slot {} has {} positions, 1 to {} are expected", op, slot, length, capacity);
  }
  return length;
}

std::vector<int64_t> with_last_size(const at::Tensor& x, int64_t out) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = out;
  return sizes;
}

}  // namespace shardpipe::kernels
