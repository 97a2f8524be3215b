#include "plan/rates.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
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
constexpr int kSmallOperators = 200;
constexpr int64_t kSmall = 64;  // elements: the call is what takes the time

template <typename F>
double seconds_of(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
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
    std::vector<double> seconds;
    for (int round = 0; round <= kRounds; ++round) {
      for (size_t i = 0; i < count; ++i) {
        const double passed = seconds_of([&] { product(x, weights[i], choice); });
        if (round > 0) {  // the first one prepares the kernels
          seconds.push_back(passed);
        }
      }
    }
    return std::max(median(std::move(seconds)), 1e-9);
  };
  partition::Rates rates;
  rates.bytes_per_second = static_cast<double>(weight_bytes) / multiply(1, weights.size());
  rates.flops_per_second = static_cast<double>(2 * kManyRows * kOut * kIn) / multiply(kManyRows, kManyWeights);
  const at::Tensor small = at::full({kSmall}, 0.5, dtype);
  std::vector<double> calls;
  for (int round = 0; round <= kRounds; ++round) {
    calls.push_back(seconds_of([&] {
      at::Tensor x = small;
      for (int i = 0; i < kSmallOperators; ++i) {
        x = at::mul(x, small);
      }
    }));
  }
  rates.node_seconds = median(std::move(calls)) / kSmallOperators;
  return rates;
}

partition::Rates shared_rates(const partition::Rates& alone, const partition::Rates& host, int active) {
  partition::Rates rates = alone;
  // Several threads are no slower than one, whatever a short measurement says.
  const auto part = [&](double of_alone, double of_host) {
    return std::min(of_alone, std::max(of_alone, of_host) / active);
  };
  rates.flops_per_second = part(alone.flops_per_second, host.flops_per_second);
  rates.bytes_per_second = part(alone.bytes_per_second, host.bytes_per_second);
  return rates;
}

double median(std::vector<double> numbers) {
  const auto middle = numbers.begin() + std::ssize(numbers) / 2;
  std::nth_element(numbers.begin(), middle, numbers.end());
  return *middle;
}

}  // namespace shardpipe::plan
