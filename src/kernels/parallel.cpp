#include "kernels/parallel.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>

namespace shardpipe::kernels::detail {
namespace {

/// The OpenMP runtime that LibTorch has loaded, through the entry points that GCC's code uses (libgomp has them, and
/// so do the Intel and LLVM runtimes).
struct OpenMp {
  void (*parallel)(void (*)(void*), void*, unsigned threads, unsigned flags) = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;

  OpenMp() {
    parallel = reinterpret_cast<decltype(parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    thread_num = reinterpret_cast<decltype(thread_num)>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
    num_threads = reinterpret_cast<decltype(num_threads)>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
  }
  bool found() const { return parallel != nullptr && thread_num != nullptr && num_threads != nullptr; }
};

const OpenMp& open_mp() {
  static const OpenMp instance;
  return instance;
}

}  // namespace

int region_threads() {
  if (at::in_parallel_region() || !open_mp().found()) {
    return 1;
  }
  at::internal::lazy_init_num_threads();
  return at::get_num_threads();
}

void run_region(void (*body)(void*, int, int), void* context) {
  struct Call {
    void (*body)(void*, int, int);
    void* context;
  } call{body, context};
  // 0 threads = as many as at::set_num_threads says; another number would make libgomp rebuild its pool.
  open_mp().parallel(
      [](void* data) {
        const auto& c = *static_cast<Call*>(data);
        c.body(c.context, open_mp().thread_num(), open_mp().num_threads());
      },
      &call, 0, 0);
}

}  // namespace shardpipe::kernels::detail
