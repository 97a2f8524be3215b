#include "kernels/segments.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace shardpipe::kernels {
namespace {

// Queries that share one mask where a window or slopes shape the scores: the mask has a row for each, and for each head
// where there are slopes, so the whole segment's would be too large.
constexpr int64_t kMaskRows = 128;

// attend_segment where a window or slopes matter.
at::Tensor attend_ruled(
    const at::Tensor& q,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const Segment& segment,
    const at::Tensor& positions,
    double scale,
    const ScoreRule& rule) {
  const int64_t* position = positions.const_data_ptr<int64_t>();
  std::vector<at::Tensor> blocks;
  const int64_t end_token = segment.first + segment.count;
  for (int64_t first = segment.first; first < end_token; first += kMaskRows) {
    const int64_t count = std::min(kMaskRows, end_token - first);
    const int64_t begin = rule.window > 0 ? std::max<int64_t>(0, position[first] - rule.window + 1) : 0;
    const int64_t end = position[first + count - 1] + 1;
    const at::Tensor columns = at::arange(begin, end, positions.options());
    // [count, end - begin]: how far each key lies before the query, negative for the keys after it.
    const at::Tensor back = positions.narrow(0, first, count).unsqueeze(1) - columns.unsqueeze(0);
    at::Tensor mask = back >= 0;
    if (rule.window > 0) {
      mask = mask.logical_and(back < rule.window);
    }
    if (rule.slopes.defined()) {
      const auto dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      const at::Tensor slopes = rule.slopes.to(at::kCPU, dtype).view({-1, 1, 1});
      mask = (-slopes * back).masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity());
    } else {
      mask = mask.unsqueeze(0);
    }
    const at::Tensor queries = q.narrow(0, first, count).transpose(0, 1).unsqueeze(0);
    const at::Tensor keys = k_cache.select(0, segment.slot).narrow(1, begin, end - begin).unsqueeze(0);
    const at::Tensor values = v_cache.select(0, segment.slot).narrow(1, begin, end - begin).unsqueeze(0);
    const at::Tensor attended = at::scaled_dot_product_attention(
        queries, keys, values, mask.unsqueeze(0).to(q.device()), 0.0, /*is_causal=*/false, scale,
        /*enable_gqa=*/q.size(1) != k_cache.size(1));
    blocks.push_back(attended.squeeze(0).transpose(0, 1));
  }
  return at::cat(blocks, 0);
}

}  // namespace

std::vector<Segment> find_segments(
    const at::Tensor& slots, const at::Tensor& positions, int64_t num_slots, int64_t capacity) {
  const int64_t tokens = slots.size(0);
  const int64_t* slot = slots.const_data_ptr<int64_t>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  std::vector<Segment> segments;
  std::vector<bool> seen(static_cast<size_t>(num_slots));
  for (int64_t t = 0; t < tokens; ++t) {
    if (slot[t] < 0 || slot[t] >= num_slots) {
      throw_usage("cached_attention: slot {} of token {}: the cache has {} rows", slot[t], t, num_slots);
    }
    if (position[t] < 0 || position[t] >= capacity) {
      throw_usage(
          "cached_attention: position {} of token {} in slot {}: the cache holds {} positions a row", position[t], t,
          slot[t], capacity);
    }
    if (!segments.empty() && segments.back().slot == slot[t]) {
      Segment& segment = segments.back();
      if (position[t] <= position[t - 1]) {
        throw_usage(
            "cached_attention: position {} of token {} in slot {} follows position {}: positions must ascend",
            position[t], t, slot[t], position[t - 1]);
      }
      segment.consecutive = segment.consecutive && position[t] == position[t - 1] + 1;
      ++segment.count;
      continue;
    }
    if (seen[static_cast<size_t>(slot[t])]) {
      throw_usage("cached_attention: token {} returns to slot {}: the tokens of a slot must be contiguous", t, slot[t]);
    }
    seen[static_cast<size_t>(slot[t])] = true;
    segments.push_back({t, 1, slot[t], position[t], true});
  }
  return segments;
}

at::Tensor attend_segment(
    const at::Tensor& q,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const Segment& segment,
    const at::Tensor& positions,
    double scale,
    const ScoreRule& rule) {
  const at::Tensor of_segment = positions.narrow(0, segment.first, segment.count);
  const int64_t length = segment.consecutive ? segment.position + segment.count : of_segment[-1].item<int64_t>() + 1;
  if (rule.slopes.defined() || (rule.window > 0 && rule.window < length)) {
    return attend_ruled(q, k_cache, v_cache, segment, positions, scale, rule);
  }
  const at::Tensor queries = q.narrow(0, segment.first, segment.count).transpose(0, 1).unsqueeze(0);
  const at::Tensor keys = k_cache.select(0, segment.slot).narrow(1, 0, length).unsqueeze(0);
  const at::Tensor values = v_cache.select(0, segment.slot).narrow(1, 0, length).unsqueeze(0);
  // is_causal aligns query 0 with key 0, so it serves only segments that start their row.
  const bool causal = segment.consecutive && segment.position == 0 && segment.count > 1;
  std::optional<at::Tensor> mask;
  if (!causal && segment.count > 1) {
    const at::Tensor columns = at::arange(length, of_segment.options());
    mask = columns.unsqueeze(0) <= of_segment.unsqueeze(1);
    mask = mask->to(q.device());
  }
  const at::Tensor attended = at::scaled_dot_product_attention(
      queries, keys, values, mask, 0.0, causal, scale, /*enable_gqa=*/q.size(1) != k_cache.size(1));
  return attended.squeeze(0).transpose(0, 1);
}

}  // namespace shardpipe::kernels
