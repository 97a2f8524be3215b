#pragma once

#include <c10/util/ParallelGuard.h>

#include <cstdint>

namespace shardpipe::kernels {

namespace detail {
/// Number of threads that a parallel region would have here: 1 inside one, or without an OpenMP runtime.
int region_threads();
/// Runs body(context, thread, threads) on every thread of LibTorch's own OpenMP pool.
void run_region(void (*body)(void* context, int thread, int threads), void* context);
}  // namespace detail

/// Cuts [0, count) into one contiguous range a thread and runs body(begin, end) on each. The ranges depend on nothing
/// but `count` and the number of threads. Serial when `work` (bytes touched, or floating point operations / 4) is too
/// small to pay for a region, or inside a parallel region. `body` must not throw.
///
/// Why not at::parallel_for: its inline form is serial in a file that is not compiled with -fopenmp, and an OpenMP
/// runtime linked a second time would give a second pool of threads beside LibTorch's.
template <typename Body>
void parallel_ranges(int64_t count, int64_t work, const Body& body) {
  constexpr int64_t kWorthARegion = 128 * 1024;  // about 5 us on one thread; a region costs 2 to 3 us
  if (count < 2 || work < kWorthARegion || detail::region_threads() < 2) {
    if (count > 0) {
      body(int64_t{0}, count);
    }
    return;
  }
  struct Context {
    const Body& body;
    int64_t count;
  } context{body, count};
  detail::run_region(
      [](void* data, int thread, int threads) {
        const auto& c = *static_cast<Context*>(data);
        const int64_t begin = c.count * thread / threads;
        const int64_t end = c.count * (thread + 1) / threads;
        if (begin < end) {
          c10::ParallelGuard guard(true);
          c.body(begin, end);
        }
      },
      &context);
}

}  // namespace shardpipe::kernels
