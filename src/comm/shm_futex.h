#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>

namespace shardpipe::comm {

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// A number in memory that several processes map, which one can sleep on until it changes. Zero bytes are one that was
/// never raised. Whoever dies while it sleeps costs the others a needless call of the system at times, and no more.
class FutexWord {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  /// Raises the number and wakes all who sleep on it. What was written before is seen by whoever sees the new number.
  uint32_t raise() {
    const uint32_t now = value_.fetch_add(1, std::memory_order_seq_cst) + 1;
    wake();
    return now;
  }

  /// The same, where nobody need see a new number who does not sleep: a read, when nobody does. What was written before
  /// is seen by whoever begins to sleep after it.
  void raise_for_sleepers() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_relaxed) != 0) {
      value_.fetch_add(1, std::memory_order_seq_cst);
      wake();
    }
  }

  /// Sleeps until the number is raised, unless `done()` holds, which is asked once after others know of the sleeper;
  /// `limit_ms` at most.
  template <typename Done>
  void sleep(const Done& done, int limit_ms) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint32_t before = value_.load(std::memory_order_seq_cst);
    if (!done()) {
      const timespec limit{limit_ms / 1000, limit_ms % 1000 * 1'000'000L};
      ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value_), FUTEX_WAIT, before, &limit, nullptr, 0);
    }
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }

 private:
  void wake() {
    if (sleepers_.load(std::memory_order_seq_cst) != 0) {
      ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value_), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
    }
  }
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
};
static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free);

}  // namespace shardpipe::comm
