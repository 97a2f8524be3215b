#pragma once

// What lies where in the segment of a group. All of it is zero at first.
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "comm/shm_futex.h"
#include "comm/shm_segment.h"

namespace shardpipe::comm {

inline constexpr size_t kShmLine = 64;  ///< a cache line: what one rank writes often has its own

/// Set by the first rank before anyone attaches.
struct alignas(kShmLine) ShmHeader {
  static constexpr uint64_t kMagic = 0x3153444d48535053;  ///< "SPSHMDS1"
  uint64_t magic = 0;
  uint32_t num_ranks = 0;
};

/// One rank's own words. `process` is set while it attaches.
struct ShmRank {
  ProcessIdentity process;

  alignas(kShmLine) FutexWord bell;       ///< its compute thread sleeps here in wait for messages
  alignas(kShmLine) FutexWord comm_bell;  ///< its communication thread sleeps here
  /// Its compute thread is in a wait, and sees by itself what comes.
  alignas(kShmLine) std::atomic<uint32_t> waiting{0};
  /// Pieces of collectives that it brought so far: only to say whom the others wait for.
  alignas(kShmLine) std::atomic<uint64_t> brought{0};
  /// 1 + the core on which its compute thread was when it last waited for more than a moment.
  alignas(kShmLine) std::atomic<uint32_t> core{0};
};

// Collectives: each rank brings its piece of number k in slot k % kSlots, and may have to bring the result of its
// share in another. See shm_collectives.cpp for why four are enough.
inline constexpr int kShmSlots = 4;
inline constexpr size_t kShmPieceBytes = 128 * 1024;

/// How often something arrived in a slot, of all ranks together.
struct alignas(kShmLine) ShmArrivals {
  FutexWord count;
};

/// What a rank calls, to be compared with the others.
struct alignas(kShmLine) ShmCall {
  uint64_t kind = 0;
  uint64_t bytes = 0;
};

/// Messages from one rank to one other: a ring of records.
struct ShmRing {
  static constexpr uint64_t kBytes = 1024 * 1024;
  static constexpr uint64_t kHotBytes = 64 * 1024;     ///< small messages, one at a time, stay in these: in the cache
  alignas(kShmLine) std::atomic<uint64_t> written{0};  ///< bytes since the beginning, by the sender
  alignas(kShmLine) std::atomic<uint64_t> read{0};     ///< bytes since the beginning, by the receiver
  /// The sender has more than fits: to be told when there is room.
  alignas(kShmLine) std::atomic<uint32_t> sender_waits{0};
  alignas(kShmLine) char data[kBytes];
};

/// Offsets for a number of ranks.
class ShmLayout {
 public:
  explicit ShmLayout(int num_ranks) : n_(static_cast<size_t>(num_ranks)) {}

  size_t rank(int r) const { return sizeof(ShmHeader) + sizeof(ShmRank) * static_cast<size_t>(r); }
  size_t brought(int slot) const {
    return rank(static_cast<int>(n_)) + sizeof(ShmArrivals) * static_cast<size_t>(slot);
  }
  size_t reduced(int slot) const { return brought(kShmSlots + slot); }
  size_t call(int r, int slot) const {
    return brought(2 * kShmSlots) + sizeof(ShmCall) * (static_cast<size_t>(r) * kShmSlots + static_cast<size_t>(slot));
  }
  size_t piece(int r, int slot) const {
    return round_up(call(static_cast<int>(n_), 0)) +
           (static_cast<size_t>(r) * kShmSlots + static_cast<size_t>(slot)) * kShmPieceBytes;
  }
  /// A rank's share of a piece, reduced.
  size_t result(int r, int slot) const {
    return piece(static_cast<int>(n_), 0) +
           (static_cast<size_t>(r) * kShmSlots + static_cast<size_t>(slot)) * result_bytes();
  }
  size_t result_bytes() const { return round_up(kShmPieceBytes / n_ + kShmLine); }
  size_t ring(int from, int to) const {
    return result(static_cast<int>(n_), 0) +
           (static_cast<size_t>(from) * n_ + static_cast<size_t>(to)) * sizeof(ShmRing);
  }
  size_t bytes() const { return ring(static_cast<int>(n_), 0); }

 private:
  static size_t round_up(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
  static constexpr size_t kPage = 4096;
  size_t n_;
};

}  // namespace shardpipe::comm
