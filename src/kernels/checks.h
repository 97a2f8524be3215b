#pragma once

// Argument checks shared by the CPU kernels, the reference forms and the shape-only kernels.
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernel_table.h"

namespace shardpipe::kernels {

/// "float32 [2, 3, 4]": how a message names a tensor.
std::string describe(const at::Tensor& tensor);

/// silu, gelu, gelu_tanh or relu; Error(usage) names the others.
Activation parse_activation(std::string_view name);

/// Error(usage) unless `many` is "onednn" or "aten".
void check_many(std::string_view op, std::string_view many);

/// x [..., in], weight [out, in], bias [out] or none, of one dtype and device. Error(usage) names the operator and both
/// shapes.
void check_linear(
    std::string_view op, const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

/// The same for each weight; biases is empty or has one entry (perhaps none) a weight.
void check_linear_group(
    const at::Tensor& x, at::TensorList weights, const c10::List<std::optional<at::Tensor>>& biases);

/// The same for both weights, which have one shape.
void check_linear_gated(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const std::optional<at::Tensor>& gate_bias,
    const std::optional<at::Tensor>& up_bias);

/// The i-th of check_linear_group's biases.
inline std::optional<at::Tensor> bias_of(const c10::List<std::optional<at::Tensor>>& biases, size_t i) {
  return biases.empty() ? std::optional<at::Tensor>() : biases.get(i);
}

/// x [..., hidden], weight [hidden]; residual (may be null) of x's shape and dtype.
void check_rms_norm(std::string_view op, const at::Tensor& x, const at::Tensor* residual, const at::Tensor& weight);

/// x [..., tokens, heads, head_dim], cos and sin [tokens, rotary_dim / 2] float32, rotary_dim <= head_dim.
void check_rotary(std::string_view op, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// Shapes and dtypes of cached_attention's arguments; the values of slots and positions are checked by find_segments.
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
    const std::optional<at::Tensor>& slopes);

/// Shapes and dtypes of cross_attention's arguments.
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
    const at::Tensor& lengths);

/// Shapes and dtypes of sequence_attention's arguments but its bias.
void check_sequence_attention(
    std::string_view op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& slots);

/// The bias of attention's scores: bias [rows, heads] of q's dtype and bias_rows int64 [2 reach + 1], both or none.
void check_bias(
    std::string_view op,
    const at::Tensor& q,
    const std::optional<at::Tensor>& bias,
    const std::optional<at::Tensor>& bias_rows);

/// lengths[slot] of cross_attention: how many positions of the slot's source there are. Throws Error(usage) unless it
/// is 1 to `capacity`.
int64_t source_length(std::string_view op, const at::Tensor& lengths, int64_t slot, int64_t capacity);

/// x's leading sizes with `out` as the last.
std::vector<int64_t> with_last_size(const at::Tensor& x, int64_t out);

/// float32 or bfloat16: what our own kernels compute in; other dtypes take LibTorch's operators.
inline bool has_own_kernel(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
}

/// Calls f(T{}) with T = float or c10::BFloat16, for a tensor with has_own_kernel.
template <typename F>
void with_type(const at::Tensor& x, const F& f) {
  if (x.scalar_type() == at::kFloat) {
    f(float{});
  } else {
    f(c10::BFloat16{});
  }
}

}  // namespace shardpipe::kernels
