#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/monitor.h"
#include "comm/shm_layout.h"
#include "comm/store.h"

namespace shardpipe::comm {

/// The memory that the ranks of one group share, all on this host, seen from one of them; and how it waits there for
/// the others. Its messages and collectives are in shm_messages.h and shm_collectives.h.
class ShmGroup {
 public:
  struct Seat {
    std::vector<int> ranks;  ///< numbers in the world, in the order of the group
    int rank = 0;            ///< this one's number in the group
    std::shared_ptr<Monitor> monitor;
    bool spin = false;  ///< there is a core for each rank of this host: wait busily for a while
  };

  /// Maps one segment for all ranks of the list, which agree through the store under `key`. Returns nothing on all of
  /// them if any cannot, with the reason in `why`. Throws Error(rank) naming the ranks that do not come in time.
  static std::shared_ptr<ShmGroup> connect(
      Store& store, const std::string& key, Seat seat, std::chrono::milliseconds timeout, std::string& why);

  /// A segment for `num_ranks` ranks, and a rank of a segment.
  static ShmSegment make_segment(int num_ranks);
  ShmGroup(ShmSegment segment, Seat seat);

  int rank() const { return seat_.rank; }
  int size() const { return static_cast<int>(seat_.ranks.size()); }
  /// Time spent in wait().
  int64_t wait_ns() const { return wait_ns_; }
  bool spins() const { return seat_.spin; }
  Monitor& monitor() const { return *seat_.monitor; }
  int world_rank(int member) const { return seat_.ranks[static_cast<size_t>(member)]; }

  ShmRank& member(int r) const { return at<ShmRank>(layout_.rank(r)); }
  const ShmLayout& layout() const { return layout_; }
  template <typename T>
  T& at(size_t offset) const {
    return *reinterpret_cast<T*>(segment_.data() + offset);
  }
  char* bytes_at(size_t offset) const { return segment_.data() + offset; }

  /// Returns when `done()` holds, which others announce by raising `word`: busily for a while, then asleep. Now and
  /// then looks whether the ranks r for which `awaited(r)` holds still live. `what` is for messages. Throws
  /// Error(rank).
  template <typename Done, typename Awaited>
  void wait(FutexWord& word, const char* what, const Done& done, const Awaited& awaited) const {
    if (done()) {
      return;
    }
    const WaitTime time(wait_ns_);
    if (seat_.spin) {
      const Clock::time_point end = Clock::now() + kSpin;
      do {
        for (int i = 0; i < 64; ++i) {
          cpu_pause();
          if (done()) {
            return;
          }
        }
        share_core(awaited);
      } while (Clock::now() < end);
    }
    while (!done()) {
      const int missing = look_around(what, awaited);
      if (missing >= 0 && !done()) {
        lost(missing, what);
      }
      word.sleep(done, kLookMs);
    }
    note_core();  // where it woke
    end_wait();
  }

 private:
  struct WaitTime {
    explicit WaitTime(int64_t& sum) : sum_(sum) {}
    ~WaitTime() { sum_ += std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count(); }
    WaitTime(const WaitTime&) = delete;
    WaitTime& operator=(const WaitTime&) = delete;
    int64_t& sum_;
    Clock::time_point start_ = Clock::now();
  };

  static constexpr std::chrono::microseconds kSpin{200};
  static constexpr int kLookMs = 100;

  /// Two ranks may be on one core, since the kernel likes to wake a process beside the one that it waited for: the one
  /// that computes is let go on, and the one of the higher number leaves.
  template <typename Awaited>
  void share_core(const Awaited& awaited) const {
    const uint32_t own = note_core();
    for (int r = 0; r < rank(); ++r) {
      if (member(r).core.load(std::memory_order_relaxed) == own && awaited(r)) {
        leave_core();
        break;
      }
    }
    std::this_thread::yield();
  }
  uint32_t note_core() const;
  void leave_core() const;

  template <typename Awaited>
  int look_around(const char* what, const Awaited& awaited) const {
    int dead = -1;
    int first = -1;
    for (int r = 0; r < size(); ++r) {
      if (r != rank() && awaited(r)) {
        first = first < 0 ? r : first;
        dead = dead < 0 && is_dead(r) ? r : dead;
      }
    }
    begin_wait(what, first);
    return dead;
  }
  bool is_dead(int r) const;
  /// Throws if some rank has failed. Tells the watchdog who is waited for.
  void begin_wait(const char* what, int awaited) const;
  void end_wait() const;
  [[noreturn]] void lost(int r, const char* what) const;

  ShmSegment segment_;
  ShmLayout layout_;
  Seat seat_;
  mutable int64_t wait_ns_ = 0;
};

}  // namespace shardpipe::comm
