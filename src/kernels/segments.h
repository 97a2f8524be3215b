#pragma once

#include <ATen/core/Tensor.h>

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

/// Cuts the tokens of cached_attention into segments. slots and positions: int64 [tokens] on the CPU, contiguous.
/// Throws Error(usage) naming the token when a slot or position is outside a cache of `num_slots` rows of `capacity`
/// positions, when positions of a slot do not ascend, or when the tokens of a slot are not contiguous.
std::vector<Segment> find_segments(
    const at::Tensor& slots, const at::Tensor& positions, int64_t num_slots, int64_t capacity);

/// What shapes the scores of cached_attention beside causality (ops.h).
struct ScoreRule {
  int64_t window = 0;  // 0 = every position
  at::Tensor slopes;   // float32 [heads], or undefined
};

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

}  // namespace shardpipe::kernels
