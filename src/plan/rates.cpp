#include "plan/rates.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

#include "kernels/ops.h"
#include "kernels/threads_guard.h"

namespace shardpipe::plan {
namespace {

// Weights of a model's size, together larger than the caches.
constexpr int64_t kOut = 1024;
constexpr int64_t kIn = 1024;
constexpr int64_t kWeightBytes = int64_t{96} << 20;
constexpr int64_t kManyRows = 64;
constexpr int kManyWeights = 2;
constexpr int kRounds = 3;
constexpr int kSmallOperators = 500;
constexpr int64_t kSmall = 64;  // elements: the call is what takes the time

// A core that is taken away only makes a run longer: the least of several, the first one not counted.
template <typename F>
double least_seconds(const F& f) {
  double least = std::numeric_limits<double>::infinity();
  for (int round = 0; round <= kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    least = round > 0 ? std::min(least, passed.count()) : least;
  }
  return std::max(least, 1e-9);
}

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const std::optional<kernels::KernelChoice>& choice) {
  if (!choice || (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16)) {
    return at::linear(x, weight);
  }
  const bool single = x.scalar_type() == at::kFloat;
  return kernels::linear(
      x, weight, std::nullopt, single ? choice->few_rows_f32 : choice->few_rows_bf16,
      single ? choice->many_f32 : choice->many_bf16);
}

}  // namespace

partition::Rates measure_rates(at::ScalarType dtype, int threads, const std::optional<kernels::KernelChoice>& choice) {
  const c10::InferenceMode inference;
  const kernels::ThreadsGuard guard(threads);
  const int64_t weight_bytes = kOut * kIn * static_cast<int64_t>(c10::elementSize(dtype));
  std::vector<at::Tensor> weights;
  for (int64_t bytes = 0; bytes < kWeightBytes; bytes += weight_bytes) {
    weights.push_back(at::full({kOut, kIn}, 0.01, dtype));
  }
  const auto multiply = [&](int64_t rows, size_t count) {
    const at::Tensor x = at::full({rows, kIn}, 0.5, dtype);
    return least_seconds([&] {
             for (size_t i = 0; i < count; ++i) {
               product(x, weights[i], choice);
             }
           }) /
           static_cast<double>(count);
  };
  partition::Rates rates;
  rates.bytes_per_second = static_cast<double>(weight_bytes) / multiply(1, weights.size());
  rates.flops_per_second = static_cast<double>(2 * kManyRows * kOut * kIn) / multiply(kManyRows, kManyWeights);
  const at::Tensor small = at::full({kSmall}, 0.5, dtype);
  rates.node_seconds = least_seconds([&] {
                         at::Tensor x = small;
                         for (int i = 0; i < kSmallOperators; ++i) {
                           x = at::mul(x, small);
                         }
                       }) /
                       kSmallOperators;
  return rates;
}

partition::Rates shared_rates(const partition::Rates& alone, const partition::Rates& host, int active) {
  partition::Rates rates = alone;
  rates.flops_per_second = std::min(alone.flops_per_second, host.flops_per_second / active);
  rates.bytes_per_second = std::min(alone.bytes_per_second, host.bytes_per_second / active);
  return rates;
}

}  // namespace shardpipe::plan
