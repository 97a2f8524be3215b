#pragma once

// Comparison of tensors with bounds that are derived, never picked: from the rounding unit of a dtype, the length of
// the sums and the size of what was summed. Expected values are computed in float64 from the same inputs. Source of the
// formulas: N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace shardpipe::test {

/// The largest relative error of one rounding to nearest in this dtype (half the distance from 1 to the next number).
inline double rounding_unit(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return std::ldexp(1.0, -53);
    case at::kFloat:
      return std::ldexp(1.0, -24);
    case at::kHalf:
      return std::ldexp(1.0, -11);
    case at::kBFloat16:
      return std::ldexp(1.0, -8);
    default:
      return 0.0;
  }
}

/// The smallest normal number: below it, absolute errors of this size are possible (flush to zero).
inline double smallest_normal(at::ScalarType dtype) {
  return dtype == at::kHalf ? std::ldexp(1.0, -14) : dtype == at::kDouble ? 0x1p-1022 : 0x1p-126;
}

/// gamma_n = n u / (1 - n u): bounds the relative error of n roundings in a row.
inline double gamma(double n, at::ScalarType dtype) {
  const double nu = n * rounding_unit(dtype);
  return nu / (1.0 - nu);
}

/// Bound on the error of sums of `length` products kept in `sums` and rounded once to `result`, for any order of the
/// sum: gamma_(length + partials) * magnitude + u |expected|. `magnitude`: the same sums over absolute values, in
/// float64; `partials`: how many partial results were added up besides (parts of a tensor-parallel sum, a bias).
inline at::Tensor dot_bound(
    const at::Tensor& expected,
    const at::Tensor& magnitude,
    int64_t length,
    at::ScalarType result,
    at::ScalarType sums = at::kFloat,
    int64_t partials = 1) {
  const at::Tensor summed = magnitude * gamma(static_cast<double>(length + partials), sums);
  // Every product may lose a subnormal number.
  return summed + (expected.abs() + summed) * rounding_unit(result) +
         static_cast<double>(length + 1) * smallest_normal(result);
}

/// Bound of `roundings` elementwise roundings in a row to `dtype`.
inline at::Tensor rounding_bound(const at::Tensor& expected, double roundings, at::ScalarType dtype) {
  return expected.abs() * gamma(roundings, dtype) + smallest_normal(dtype);
}

/// x weight^T + bias in float64 with its bound for results in x's dtype and sums in `sums`.
struct Expected {
  at::Tensor value;
  at::Tensor bound;
};
inline Expected expected_linear(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {}, at::ScalarType sums = at::kFloat) {
  const at::Tensor x64 = x.to(at::kDouble);
  const at::Tensor w64 = weight.to(at::kDouble).t();
  at::Tensor value = at::matmul(x64, w64);
  at::Tensor magnitude = at::matmul(x64.abs(), w64.abs());
  if (bias.defined()) {
    value = value + bias.to(at::kDouble);
    magnitude = magnitude + bias.to(at::kDouble).abs();
  }
  return {value, dot_bound(value, magnitude, x.size(-1), x.scalar_type(), sums)};
}

/// Distance in units in the last place of `dtype` at `expected`.
inline double ulps(double actual, double expected, at::ScalarType dtype) {
  const double size = std::max(std::abs(expected), smallest_normal(dtype));
  return std::abs(actual - expected) / (2.0 * rounding_unit(dtype) * std::exp2(std::floor(std::log2(size))));
}

/// Succeeds when shapes are equal and |actual - expected| <= bound in every element; NaN and infinity must be in the
/// same places. Says the worst element, its error in ulp and as a multiple of its bound, and how many exceed theirs.
inline ::testing::AssertionResult close(const at::Tensor& actual, const at::Tensor& expected, const at::Tensor& bound) {
  if (actual.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure() << fmt::format(
               "shape [{}], expected [{}]", fmt::join(actual.sizes(), ", "), fmt::join(expected.sizes(), ", "));
  }
  const at::Tensor a = actual.to(at::kDouble).reshape(-1).contiguous();
  const at::Tensor e = expected.to(at::kDouble).reshape(-1).contiguous();
  const at::Tensor b = bound.to(at::kDouble).expand(expected.sizes()).reshape(-1).contiguous();
  const double* av = a.const_data_ptr<double>();
  const double* ev = e.const_data_ptr<double>();
  const double* bv = b.const_data_ptr<double>();
  int64_t worst = -1;
  int64_t exceeding = 0;
  double worst_ratio = 1.0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    double ratio = 0.0;
    if (std::isfinite(ev[i]) && std::isfinite(av[i])) {
      const double error = std::abs(av[i] - ev[i]);
      ratio = error == 0.0 ? 0.0 : error / bv[i];
    } else {
      const bool same = std::isnan(ev[i]) ? std::isnan(av[i]) : av[i] == ev[i];
      ratio = same ? 0.0 : std::numeric_limits<double>::infinity();
    }
    if (!(ratio <= 1.0)) {
      ++exceeding;
      if (worst < 0 || ratio > worst_ratio) {
        worst = i;
        worst_ratio = ratio;
      }
    }
  }
  if (worst < 0) {
    return ::testing::AssertionSuccess();
  }
  std::vector<int64_t> index;
  int64_t rest = worst;
  for (int64_t dim = expected.dim() - 1; dim >= 0; --dim) {
    index.insert(index.begin(), rest % expected.size(dim));
    rest /= expected.size(dim);
  }
  return ::testing::AssertionFailure() << fmt::format(
             "{} of {} elements exceed their bound; worst at [{}]: {} instead of {}, {:.1f} ulp, {:.3g} times the "
             "bound "
             "{:.3g}",
             exceeding, a.numel(), fmt::join(index, ", "), av[worst], ev[worst],
             ulps(av[worst], ev[worst], actual.scalar_type()), worst_ratio, bv[worst]);
}

inline ::testing::AssertionResult close(const at::Tensor& actual, const Expected& expected) {
  return close(actual, expected.value, expected.bound);
}

/// Succeeds when dtype, shape and every bit are equal. Says the first different element and how many differ.
inline ::testing::AssertionResult bitwise_equal(const at::Tensor& actual, const at::Tensor& expected) {
  if (actual.scalar_type() != expected.scalar_type() || actual.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure() << fmt::format(
               "{} [{}], expected {} [{}]", c10::toString(actual.scalar_type()), fmt::join(actual.sizes(), ", "),
               c10::toString(expected.scalar_type()), fmt::join(expected.sizes(), ", "));
  }
  const at::Tensor a = actual.contiguous();
  const at::Tensor e = expected.contiguous();
  const auto* ab = static_cast<const char*>(a.const_data_ptr());
  const auto* eb = static_cast<const char*>(e.const_data_ptr());
  const auto size = static_cast<int64_t>(a.element_size());
  int64_t first = -1;
  int64_t different = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    if (!std::equal(ab + i * size, ab + (i + 1) * size, eb + i * size)) {
      ++different;
      first = first < 0 ? i : first;
    }
  }
  if (first < 0) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << fmt::format(
             "{} of {} elements differ; the first at flat index {}: {} instead of {}", different, a.numel(), first,
             a.reshape(-1)[first].item<double>(), e.reshape(-1)[first].item<double>());
}

}  // namespace shardpipe::test
