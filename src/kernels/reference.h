#pragma once

// The operators from LibTorch's own, for --kernels reference, for dtypes and devices without kernels of ours, and for
// tests. Shapes and errors are those of ops.h.
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "kernels/kernel_table.h"

namespace shardpipe::kernels {

at::Tensor apply_activation(const at::Tensor& x, Activation activation);

at::Tensor linear_gated_reference(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const std::optional<at::Tensor>& gate_bias,
    const std::optional<at::Tensor>& up_bias,
    Activation activation);

/// weight * (x32 * rsqrt(mean(x32^2) + eps)).to(x.dtype), x32 = x.to(float32): transformers' LlamaRMSNorm.
at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps);

std::tuple<at::Tensor, at::Tensor> add_rms_norm_reference(
    const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps);

/// x * cos + rotate_half(x) * sin in x's dtype: transformers' apply_rotary_pos_emb. Differentiable.
at::Tensor rotary_reference(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

at::Tensor cached_attention_reference(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& positions,
    double scale,
    std::optional<int64_t> window = std::nullopt,
    const std::optional<at::Tensor>& slopes = std::nullopt,
    const std::optional<at::Tensor>& bias = std::nullopt,
    const std::optional<at::Tensor>& bias_rows = std::nullopt);

at::Tensor cross_attention_reference(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& source_slots,
    const at::Tensor& source_positions,
    const at::Tensor& lengths,
    double scale);

}  // namespace shardpipe::kernels
