#include "kernels/segments.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace shardpipe::kernels {
namespace {

// Queries that share one mask where a window, slopes or a bias shape the scores: the mask has a row for each, and for
// each head but for a window, so the whole segment's would be too large.
constexpr int64_t kMaskRows = 128;

// Queries, keys and values of one sequence, [heads, .., head_dim] each, with what is added to their scores, or which of
// them count.
at::Tensor attend_with_mask(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask, double scale) {
  const at::Tensor attended = at::scaled_dot_product_attention(
      q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), mask.unsqueeze(0).to(q.device()), 0.0, /*is_causal=*/false, scale,
      /*enable_gqa=*/q.size(0) != k.size(0));
  return attended.squeeze(0).transpose(0, 1);
}

// Columns of relative_bias: distances int64 [..] -> [heads, ..].
at::Tensor bias_at(const at::Tensor& bias, const at::Tensor& distances) {
  const int64_t reach = bias.size(1) / 2;
  const at::Tensor columns = distances.clamp(-reach, reach) + reach;
  std::vector<int64_t> sizes = distances.sizes().vec();
  sizes.insert(sizes.begin(), bias.size(0));
  return bias.index_select(1, columns.flatten()).view(sizes);
}

// attend_segment where a window, slopes or a bias matter.
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
    at::Tensor added;  // [heads, count, end - begin]
    if (rule.slopes.defined()) {
      const auto dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      added = -rule.slopes.to(at::kCPU, dtype).view({-1, 1, 1}) * back;
    }
    if (rule.bias.defined()) {
      const at::Tensor bias = bias_at(rule.bias, -back);
      added = added.defined() ? added + bias : bias;
    }
    mask = added.defined() ? added.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity())
                           : mask.unsqueeze(0);
    blocks.push_back(attend_with_mask(
        q.narrow(0, first, count).transpose(0, 1), k_cache.select(0, segment.slot).narrow(1, begin, end - begin),
        v_cache.select(0, segment.slot).narrow(1, begin, end - begin), mask, scale));
  }
  return at::cat(blocks, 0);
}

}  // namespace

std::vector<Segment> find_segments(
    std::string_view op, const at::Tensor& slots, const at::Tensor& positions, int64_t num_slots, int64_t capacity) {
  const int64_t tokens = slots.size(0);
  const int64_t* slot = slots.const_data_ptr<int64_t>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  std::vector<Segment> segments;
  std::vector<bool> seen(static_cast<size_t>(num_slots));
  for (int64_t t = 0; t < tokens; ++t) {
    if (slot[t] < 0 || slot[t] >= num_slots) {
      throw_usage("{}: slot {} of token {}: the cache has {} rows", op, slot[t], t, num_slots);
    }
    if (position[t] < 0 || position[t] >= capacity) {
      throw_usage(
          "{}: position {} of token {} in slot {}: the cache holds {} positions a row", op, position[t], t, slot[t],
          capacity);
    }
    if (!segments.empty() && segments.back().slot == slot[t]) {
      Segment& segment = segments.back();
      if (position[t] <= position[t - 1]) {
        throw_usage(
            "{}: position {} of token {} in slot {} follows position {}: positions must ascend", op, position[t], t,
            slot[t], position[t - 1]);
      }
      segment.consecutive = segment.consecutive && position[t] == position[t - 1] + 1;
      ++segment.count;
      continue;
    }
    if (seen[static_cast<size_t>(slot[t])]) {
      throw_usage("{}: token {} returns to slot {}: the tokens of a slot must be contiguous", op, t, slot[t]);
    }
    seen[static_cast<size_t>(slot[t])] = true;
    segments.push_back({t, 1, slot[t], position[t], true});
  }
  return segments;
}

std::vector<Segment> find_segments(std::string_view op, const at::Tensor& slots, int64_t num_slots) {
  return find_segments(op, slots, at::arange(slots.size(0), at::kLong), num_slots, slots.size(0));
}

at::Tensor relative_bias(
    std::string_view op, const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& bias_rows) {
  if (!bias) {
    return {};
  }
  const at::Tensor table =
      bias->to(at::kCPU, bias->scalar_type() == at::kDouble ? at::kDouble : at::kFloat).contiguous();
  const at::Tensor rows = bias_rows->to(at::kCPU).contiguous();
  const int64_t* row = rows.const_data_ptr<int64_t>();
  const int64_t columns = rows.size(0);
  for (int64_t i = 0; i < columns; ++i) {
    if (row[i] < 0 || row[i] >= table.size(0)) {
      throw_usage(
          "{}: bias_rows names row {} for distance {}, the bias has {}", op, row[i], i - columns / 2, table.size(0));
    }
  }
  return table.index_select(0, rows).t().contiguous();
}

at::Tensor attend_among(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const Segment& segment,
    double scale,
    const at::Tensor& bias) {
  const at::Tensor queries = q.narrow(0, segment.first, segment.count).transpose(0, 1);
  const at::Tensor keys = k.narrow(0, segment.first, segment.count).transpose(0, 1);
  const at::Tensor values = v.narrow(0, segment.first, segment.count).transpose(0, 1);
  if (!bias.defined()) {
    return at::scaled_dot_product_attention(
               queries.unsqueeze(0), keys.unsqueeze(0), values.unsqueeze(0), std::nullopt, 0.0, /*is_causal=*/false,
               scale, /*enable_gqa=*/queries.size(0) != keys.size(0))
        .squeeze(0)
        .transpose(0, 1);
  }
  std::vector<at::Tensor> blocks;
  for (int64_t first = 0; first < segment.count; first += kMaskRows) {
    const int64_t count = std::min(kMaskRows, segment.count - first);
    // The last query's distances, and those of the queries before it: row i is the line from count - 1 - i on.
    const int64_t least = 1 - count - first;
    const at::Tensor line = bias_at(bias, at::arange(least, segment.count - first, at::kLong));
    const at::Tensor mask = line.as_strided({line.size(0), count, segment.count}, {line.size(1), 1, 1}).flip(1);
    blocks.push_back(attend_with_mask(queries.narrow(1, first, count), keys, values, mask, scale));
  }
  return at::cat(blocks, 0);
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
  if (rule.slopes.defined() || rule.bias.defined() || (rule.window > 0 && rule.window < length)) {
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
