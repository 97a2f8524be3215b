#include "kernels/reference.h"

#include <ATen/ATen.h>

#include "kernels/checks.h"
#include "kernels/ops.h"
#include "kernels/segments.h"

namespace shardpipe::kernels {
namespace {

void write_caches(
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& positions) {
  // [slots, kv_heads, capacity, head_dim] indexed in dimensions 0 and 2 is [tokens, kv_heads, head_dim].
  const c10::List<std::optional<at::Tensor>> where{
      std::optional<at::Tensor>(slots), std::nullopt, std::optional<at::Tensor>(positions)};
  k_cache.index_put_(where, k);
  v_cache.index_put_(where, v);
}

// Results of the segments, [count, heads, head_dim] each -> [tokens, heads * head_dim].
at::Tensor join_segments(const at::Tensor& q, const std::vector<at::Tensor>& rows) {
  const std::vector<int64_t> sizes = {q.size(0), q.size(1) * q.size(2)};
  return rows.empty() ? q.new_zeros(sizes) : at::cat(rows, 0).reshape(sizes);
}

}  // namespace

at::Tensor apply_activation(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return at::silu(x);
    case Activation::gelu:
      return at::gelu(x);
    case Activation::gelu_tanh:
      return at::gelu(x, "tanh");
    case Activation::relu:
      return at::relu(x);
  }
  return x;
}

at::Tensor linear_gated_reference(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const std::optional<at::Tensor>& gate_bias,
    const std::optional<at::Tensor>& up_bias,
    Activation activation) {
  return apply_activation(at::linear(x, gate, gate_bias), activation) * at::linear(x, up, up_bias);
}

at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_rms_norm("rms_norm", x, nullptr, weight);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor variance = wide.pow(2).mean(-1, /*keepdim=*/true);
  return weight * (wide * at::rsqrt(variance + eps)).to(x.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_reference(
    const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) {
  check_rms_norm("add_rms_norm", x, &residual, weight);
  at::Tensor sum = x + residual;
  at::Tensor normed = rms_norm_reference(sum, weight, eps);
  return {sum, normed};
}

at::Tensor rotary_reference(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  check_rotary("rotary_reference", x, cos, sin);
  const int64_t half = cos.size(1);
  const at::Tensor c = at::cat({cos, cos}, -1).to(x.scalar_type()).unsqueeze(1);
  const at::Tensor s = at::cat({sin, sin}, -1).to(x.scalar_type()).unsqueeze(1);
  const at::Tensor turned = x.narrow(-1, 0, 2 * half);
  const at::Tensor swapped = at::cat({-x.narrow(-1, half, half), x.narrow(-1, 0, half)}, -1);
  const at::Tensor rotated = turned * c + swapped * s;
  if (2 * half == x.size(-1)) {
    return rotated;
  }
  return at::cat({rotated, x.narrow(-1, 2 * half, x.size(-1) - 2 * half)}, -1);
}

at::Tensor cached_attention_reference(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& positions,
    double scale,
    std::optional<int64_t> window,
    const std::optional<at::Tensor>& slopes,
    const std::optional<at::Tensor>& bias,
    const std::optional<at::Tensor>& bias_rows) {
  constexpr std::string_view kName = "cached_attention_reference";
  check_cached_attention(kName, q, k, v, k_cache, v_cache, slots, positions, window, slopes);
  check_bias(kName, q, bias, bias_rows);
  const at::Tensor host_positions = positions.to(at::kCPU).contiguous();
  const auto segments =
      find_segments(kName, slots.to(at::kCPU).contiguous(), host_positions, k_cache.size(0), k_cache.size(2));
  write_caches(k, v, k_cache, v_cache, slots, positions);
  std::vector<at::Tensor> rows;
  rows.reserve(segments.size());
  const ScoreRule rule{window.value_or(0), slopes.value_or(at::Tensor()), relative_bias(kName, bias, bias_rows)};
  for (const Segment& segment : segments) {
    rows.push_back(attend_segment(q, k_cache, v_cache, segment, host_positions, scale, rule));
  }
  return join_segments(q, rows);
}

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
    double scale) {
  constexpr std::string_view kName = "cross_attention_reference";
  check_cross_attention(kName, q, k, v, k_cache, v_cache, slots, source_slots, source_positions, lengths);
  find_segments(
      kName, source_slots.to(at::kCPU).contiguous(), source_positions.to(at::kCPU).contiguous(), k_cache.size(0),
      k_cache.size(2));
  const auto segments = find_segments(kName, slots.to(at::kCPU).contiguous(), k_cache.size(0));
  write_caches(k, v, k_cache, v_cache, source_slots, source_positions);
  const at::Tensor host_lengths = lengths.to(at::kCPU).contiguous();
  std::vector<at::Tensor> rows;
  rows.reserve(segments.size());
  for (const Segment& segment : segments) {
    const int64_t length = source_length(kName, host_lengths, segment.slot, k_cache.size(2));
    const auto of_slot = [&](const at::Tensor& cache) {
      return cache.select(0, segment.slot).narrow(1, 0, length).unsqueeze(0);
    };
    const at::Tensor attended = at::scaled_dot_product_attention(
        q.narrow(0, segment.first, segment.count).transpose(0, 1).unsqueeze(0), of_slot(k_cache), of_slot(v_cache),
        std::nullopt, 0.0, /*is_causal=*/false, scale, /*enable_gqa=*/q.size(1) != k.size(1));
    rows.push_back(attended.squeeze(0).transpose(0, 1));
  }
  return join_segments(q, rows);
}

at::Tensor sequence_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& slots,
    double scale,
    const std::optional<at::Tensor>& bias,
    const std::optional<at::Tensor>& bias_rows) {
  constexpr std::string_view kName = "sequence_attention";
  check_sequence_attention(kName, q, k, v, slots);
  check_bias(kName, q, bias, bias_rows);
  const at::Tensor host_slots = slots.to(at::kCPU).contiguous();
  const int64_t num_slots = host_slots.numel() == 0 ? 0 : host_slots.max().item<int64_t>() + 1;
  const at::Tensor table = relative_bias(kName, bias, bias_rows);
  std::vector<at::Tensor> rows;
  for (const Segment& segment : find_segments(kName, host_slots, num_slots)) {
    rows.push_back(attend_among(q, k, v, segment, scale, table));
  }
  return join_segments(q, rows);
}

}  // namespace shardpipe::kernels
