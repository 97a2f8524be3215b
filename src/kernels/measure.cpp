// Which way to multiply is fastest on this machine: short timings of linear's candidates.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <chrono>
#include <limits>

#include "kernels/choice.h"
#include "kernels/ops.h"
#include "kernels/threads_guard.h"

namespace shardpipe::kernels {
namespace {

// The weights of four layers, together larger than a core's own caches, as in a model.
constexpr int64_t kOut = 1024;
constexpr int64_t kIn = 768;
constexpr int kLayers = 4;
constexpr int kRepeats = 3;
constexpr int kRounds = 4;
constexpr std::array<int64_t, 8> kRows{1, 2, 4, 6, 8, 10, 12, 16};
constexpr int64_t kManyRows = 64;
constexpr int64_t kAlwaysFew = std::numeric_limits<int64_t>::max();

class Timer {
 public:
  explicit Timer(at::ScalarType dtype) : dtype_(dtype) {
    for (int i = 0; i < kLayers; ++i) {
      weights_.push_back(at::full({kOut, kIn}, 0.01, dtype));
    }
  }

  /// Seconds of one product of `rows` rows, the least of several.
  double seconds(int64_t rows, int64_t few_rows, const std::string& many) const {
    const at::Tensor x = at::full({rows, kIn}, 0.5, dtype_);
    double least = std::numeric_limits<double>::infinity();
    for (int repeat = 0; repeat <= kRepeats; ++repeat) {
      const auto start = std::chrono::steady_clock::now();
      for (const at::Tensor& weight : weights_) {
        linear(x, weight, std::nullopt, few_rows, many);
      }
      const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
      if (repeat > 0) {  // the first run prepares the kernels
        least = std::min(least, passed.count() / kLayers);
      }
    }
    return least;
  }

 private:
  at::ScalarType dtype_;
  std::vector<at::Tensor> weights_;
};

// Whether the first is at least as fast. A core that is taken away only makes a run longer, so the least of alternating
// rounds counts, and the first must lose in all of them: one disturbed run must not decide for good.
template <typename First, typename Second>
bool is_not_slower(const First& first, const Second& second) {
  double least_first = std::numeric_limits<double>::infinity();
  double least_second = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    least_first = std::min(least_first, first());
    least_second = std::min(least_second, second());
    if (least_first <= least_second) {
      return true;
    }
  }
  return false;
}

// Fills the two fields of one dtype.
void choose(at::ScalarType dtype, int64_t& few_rows, std::string& many) {
  const Timer timer(dtype);
  const auto time = [&](int64_t rows, int64_t few, const char* name) {
    return [&timer, rows, few, name] { return timer.seconds(rows, few, name); };
  };
  many = "aten";
  if (onednn_runs(dtype) && is_not_slower(time(kManyRows, 0, "onednn"), time(kManyRows, 0, "aten"))) {
    many = "onednn";
  }
  few_rows = 0;
  for (const int64_t rows : kRows) {
    if (!is_not_slower(time(rows, kAlwaysFew, many.c_str()), time(rows, 0, many.c_str()))) {
      break;
    }
    few_rows = rows;
  }
}

}  // namespace

KernelChoice measure(int64_t threads) {
  c10::InferenceMode inference;
  const ThreadsGuard guard(threads > 0 ? threads : at::get_num_threads());
  KernelChoice choice;
  choose(at::kFloat, choice.few_rows_f32, choice.many_f32);
  choose(at::kBFloat16, choice.few_rows_bf16, choice.many_bf16);
  return choice;
}

}  // namespace shardpipe::kernels
