#pragma once

// Softmax attention written out in float64, and how far a kernel's result may be from it.
#include <ATen/ATen.h>

#include "support/close.h"

namespace shardpipe::test {

/// One query: q [heads, head_dim], keys and values [kv_heads, length, head_dim], what is added to the scaled scores
/// [heads, length] or undefined, all float64; `dtype`: the kernel's. Returns [heads * head_dim]. Errors: a score is a
/// dot product of head_dim terms, its exponential multiplies it by at most exp(2 error of the largest score) in
/// numerator and denominator together; then sums of `length` terms and, where the weights are rounded to bfloat16
/// before they meet the values (flash attention), one unit of that; then the rounding of the result.
inline Expected expected_query(
    const at::Tensor& q,
    const at::Tensor& keys,
    const at::Tensor& values,
    double scale,
    const at::Tensor& added,
    at::ScalarType dtype) {
  const int64_t groups = q.size(0) / keys.size(0);
  const at::Tensor k = keys.repeat_interleave(groups, 0);
  const at::Tensor v = values.repeat_interleave(groups, 0);
  at::Tensor scores = at::matmul(k, q.unsqueeze(-1)).squeeze(-1) * scale;
  at::Tensor score_size = at::matmul(k.abs(), q.abs().unsqueeze(-1)).squeeze(-1) * scale;
  if (added.defined()) {
    scores = scores + added;
    score_size = score_size + added.abs();
  }
  const at::Tensor score_error = score_size.amax(-1, true) * gamma(static_cast<double>(q.size(1)) + 4, at::kFloat);
  const at::Tensor weights = at::softmax(scores, -1).unsqueeze(1);
  const at::Tensor size = at::matmul(weights, v.abs()).squeeze(1);
  const at::Tensor value = at::matmul(weights, v).squeeze(1);
  const at::Tensor relative = at::expm1(4 * score_error) +
                              gamma(2.0 * static_cast<double>(k.size(1)) + 16, at::kFloat) +
                              (dtype == at::kFloat ? 0.0 : 2 * rounding_unit(dtype));
  return {value.reshape(-1), (size * relative + rounding_bound(value.abs() + size * relative, 1, dtype)).reshape(-1)};
}

/// The rows of a result.
inline Expected stack(const std::vector<Expected>& rows) {
  std::vector<at::Tensor> values;
  std::vector<at::Tensor> bounds;
  for (const Expected& row : rows) {
    values.push_back(row.value);
    bounds.push_back(row.bound);
  }
  return {at::stack(values), at::stack(bounds)};
}

/// What relative positions add to the scores of a query at `position` and the keys [begin, end): [heads, end - begin].
inline at::Tensor expected_bias(
    const at::Tensor& bias, const at::Tensor& bias_rows, int64_t position, int64_t begin, int64_t end) {
  const int64_t reach = bias_rows.size(0) / 2;
  const at::Tensor distances = at::arange(begin - position, end - position, at::kLong);
  const at::Tensor rows = bias_rows.index_select(0, distances.clamp(-reach, reach) + reach);
  return bias.to(at::kDouble).index_select(0, rows).t();
}

}  // namespace shardpipe::test
