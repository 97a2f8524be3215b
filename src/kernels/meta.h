#pragma once

// The operators on meta tensors: the checks of ops.h and the shapes of its results, no memory.
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

namespace shardpipe::kernels {

at::Tensor meta_linear(
    const at::Tensor& x,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    int64_t few_rows,
    std::string_view many);

std::vector<at::Tensor> meta_linear_group(
    const at::Tensor& x,
    at::TensorList weights,
    const c10::List<std::optional<at::Tensor>>& biases,
    int64_t few_rows,
    std::string_view many);

at::Tensor meta_linear_gated(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const std::optional<at::Tensor>& gate_bias,
    const std::optional<at::Tensor>& up_bias,
    std::string_view activation,
    int64_t few_rows,
    std::string_view many);

at::Tensor meta_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

std::tuple<at::Tensor, at::Tensor> meta_add_rms_norm(
    const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps);

at::Tensor meta_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

at::Tensor meta_cached_attention(
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

at::Tensor meta_cross_attention(
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

at::Tensor meta_sequence_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& slots,
    double scale,
    const std::optional<at::Tensor>& bias = std::nullopt,
    const std::optional<at::Tensor>& bias_rows = std::nullopt);

}  // namespace shardpipe::kernels
