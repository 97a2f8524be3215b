#pragma once

#include <ATen/Parallel.h>

#include <cstdint>

namespace shardpipe::kernels {

/// LibTorch uses so many threads as long as this lives.
class ThreadsGuard {
 public:
  explicit ThreadsGuard(int64_t threads) : before_(at::get_num_threads()) { set(threads); }
  ~ThreadsGuard() { set(before_); }
  ThreadsGuard(const ThreadsGuard&) = delete;
  ThreadsGuard& operator=(const ThreadsGuard&) = delete;

 private:
  static void set(int64_t threads) {
    if (threads != at::get_num_threads()) {
      at::set_num_threads(static_cast<int>(threads));
    }
  }
  int64_t before_;
};

}  // namespace shardpipe::kernels
