#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <vector>

namespace shardpipe::kernels {

/// Consecutive tokens of one cache row.
struct Segment {
  int64_t first = 0;  // index of its first token
  int64_t count = 0;  // tokens
  int64_t slot = 0;
  int64_t position = 0;     // of its first token
  bool consecutive = true;  // positions grow by exactly one
};

/// Cuts the tokens of an attention operator into segments. slots and positions: int64 [tokens] on the CPU, contiguous.
/// Throws Error(usage) naming the operator and the token when a slot or position is outside a cache of `num_slots` rows
/// of `capacity` positions, when positions of a slot do not ascend, or when the tokens of a slot are not contiguous.
std::vector<Segment> find_segments(
    std::string_view op, const at::Tensor& slots, const at::Tensor& positions, int64_t num_slots, int64_t capacity);
/// The same where only the slots matter: a token's position is its place among all tokens.
std::vector<Segment> find_segments(std::string_view op, const at::Tensor& slots, int64_t num_slots);

/// What shapes the scores of cached_attention beside causality (ops.h).
struct ScoreRule {
  int64_t window = 0;  // 0 = every position
  at::Tensor slopes;   // float32 [heads], or undefined
  at::Tensor bias;     // of relative_bias, or undefined
};

/// Bias by distance, [heads, 2 reach + 1], contiguous: column i is that of the key at distance i - reach. In float32,
/// of a float64 bias in float64; undefined where there is none. Throws Error(usage) naming a row that the bias does not
/// have.
at::Tensor relative_bias(
    std::string_view op, const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& bias_rows);

/// Attention of one segment through at::scaled_dot_product_attention; its keys and values are in the caches already.
/// q [tokens, heads, head_dim]; returns [count, heads, head_dim].
at::Tensor attend_segment(
    const at::Tensor& q,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const Segment& segment,
    const at::Tensor& positions,
    double scale,
    const ScoreRule& rule);

/// Attention of one segment's tokens among themselves, those after a token included. `bias`: of relative_bias, or
/// undefined. q [tokens, heads, head_dim], k and v [tokens, kv_heads, head_dim]; returns [count, heads, head_dim].
at::Tensor attend_among(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const Segment& segment,
    double scale,
    const at::Tensor& bias);

}  // namespace shardpipe::kernels
