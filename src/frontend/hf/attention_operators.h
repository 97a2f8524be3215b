#pragma once

// The attention operators as programs call them: through the dispatcher, so that a trace records them, in the reference
// form where there are two, which passes replace. Arguments: kernels/ops.h.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace shardpipe::hf {

/// What is added to scores by the distance of key and query: rows of `table` [rows, heads], which `rows` int64
/// [2 reach + 1] names for the distances -reach to reach.
struct RelativeBias {
  std::optional<at::Tensor> table = std::nullopt;
  std::optional<at::Tensor> rows = std::nullopt;
};

/// What shapes the scores of cached_attention beside causality.
struct ScoreShape {
  double scale = 1.0;
  std::optional<int64_t> window = std::nullopt;
  std::optional<at::Tensor> slopes = std::nullopt;
  RelativeBias bias = {};
};

at::Tensor cached_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& positions,
    const ScoreShape& scores);

at::Tensor cross_attention(
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

at::Tensor sequence_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& slots,
    double scale,
    const RelativeBias& bias);

}  // namespace shardpipe::hf
