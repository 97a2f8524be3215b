#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "frontend/hf/config.h"

namespace shardpipe::hf {

/// Frequencies of a rotary embedding: angle = position * inv_freq, cos and sin scaled by attention_scaling.
struct RotaryFrequencies {
  at::Tensor inv_freq;  ///< float32 [head_dim / 2] on the CPU
  double attention_scaling = 1.0;
  /// Positions from here on would need other frequencies, which depend on the length of the row ("dynamic" and
  /// "longrope" types); nullopt where the frequencies serve every position.
  std::optional<int64_t> end_position = std::nullopt;
};

/// base^(-2 i / dim), i below dim / 2, float32.
at::Tensor default_inv_freq(double base, int64_t dim);

/// Of each position, float32 [tokens, rotary_dim / 2]; computed once for all layers.
struct RotaryAngles {
  at::Tensor cos;
  at::Tensor sin;
};
RotaryAngles rotary_angles(const at::Tensor& positions, const at::Tensor& inv_freq);

/// The frequencies that config.json asks for, in either spelling: "rope_parameters" (transformers 5), or "rope_theta"
/// and "rope_scaling" with "rope_type" or "type" (4). Types: default, linear, dynamic, yarn, longrope, llama3. Computed
/// by the same float32 operations as transformers' modeling_rope_utils.py, so the result is bitwise its own.
/// Throws Error(usage) for another type or a partial rotary embedding, Error(input) for bad values.
RotaryFrequencies rotary_frequencies(const Config& config, int64_t head_dim, int64_t max_positions);

}  // namespace shardpipe::hf
