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
  if (q.dim() != 3 || k.dim() != 3 || k.sizes() != v.sizes() || k.size(0) != q.size(0) || k.size(2) != q.size(2)) {
    throw_usage(
        "{}: expected q [tokens, heads, head_dim] and k, v [tokens, kv_heads, head_dim], got {}, {} and {}", op,
        describe(q), describe(k), describe(v));
  }
  if (k.size(1) < 1 || q.size(1) % k.size(1) != 0) {
    throw_usage("{}: {} heads are not a multiple of {} K/V heads", op, q.size(1), k.size(1));
  }
  if (k_cache.dim() != 4 || k_cache.sizes() != v_cache.sizes() || k_cache.size(1) != k.size(1) ||
      k_cache.size(3) != k.size(2)) {
    throw_usage(
        "{}: expected caches [slots, {}, capacity, {}], got {} and {}", op, k.size(1), k.size(2), describe(k_cache),
        describe(v_cache));
  }
  for (const auto* tensor : {&slots, &positions}) {
    if (tensor->dim() != 1 || tensor->size(0) != q.size(0) || tensor->scalar_type() != at::kLong) {
      throw_usage(
          "{}: expected slots and positions int64 [{}], got {} and {}", op, q.size(0), describe(slots),
          describe(positions));
    }
  }
  check_same_kind(op, q, "k", k);
  check_same_kind(op, q, "v", v);
  check_same_kind(op, q, "the K cache", k_cache);
  check_same_kind(op, q, "the V cache", v_cache);
  if (window && *window < 1) {
    throw_usage("{}: the window is {} positions, at least 1 is expected", op, *window);
  }
  if (slopes && (slopes->dim() != 1 || slopes->size(0) != q.size(1) || slopes->scalar_type() != at::kFloat)) {
    throw_usage("{}: expected slopes float32 [{}], got {}", op, q.size(1), describe(*slopes));
  }
}

std::vector<int64_t> with_last_size(const at::Tensor& x, int64_t out) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = out;
  return sizes;
}

}  // namespace shardpipe::kernels
