#pragma once

#include <cstring>

#include "comm/shm_layout.h"

namespace shardpipe::comm {

/// What goes through the ring between two ranks.
struct ShmRecord {
  enum Kind : uint32_t {
    kSkip,   ///< nothing up to the end of the ring
    kEager,  ///< a message: `tag`, followed by its bytes
    kOffer,  ///< a large message: `tag`, `id`
    kAsk,    ///< there is room for the message `id`: send it
    kBytes,  ///< a part of the message `id`: those from `offset` on, following
  };
  Kind kind = kSkip;
  uint32_t tag = 0;
  uint64_t bytes = 0;  ///< of the message; of the part for kBytes
  uint64_t id = 0;
  uint64_t offset = 0;
};
static_assert(sizeof(ShmRecord) == 32);

/// The sender's end of a ring. Records lie in whole lines and do not go around its end.
class ShmRingWriter {
 public:
  explicit ShmRingWriter(ShmRing& ring) : ring_(&ring), written_(ring.written.load(std::memory_order_relaxed)) {}

  /// The most bytes that may follow a record.
  static constexpr uint64_t kMaxBytes = ShmRing::kBytes / 4;

  /// Writes a record and `bytes` of data; false when there is no room. The receiver sees it after publish().
  bool write(const ShmRecord& record, const void* data, uint64_t bytes) {
    const uint64_t need = (sizeof(record) + bytes + kShmLine - 1) / kShmLine * kShmLine;
    const uint64_t place = written_ % ShmRing::kBytes;
    const uint64_t to_end = ShmRing::kBytes - place;
    // Both together must fit, so only small records go back early.
    const bool leaves_hot = need <= ShmRing::kHotBytes / 4 && place >= ShmRing::kHotBytes / 2 &&
                            place / ShmRing::kHotBytes != (place + need - 1) / ShmRing::kHotBytes;
    const uint64_t skipped = need > to_end || (leaves_hot && all_read()) ? to_end : 0;
    if (!has_room(skipped + need)) {
      return false;
    }
    if (skipped > 0) {
      const ShmRecord skip;
      std::memcpy(ring_->data + place, &skip, sizeof(skip));
      written_ += skipped;
    }
    char* at = ring_->data + written_ % ShmRing::kBytes;
    std::memcpy(at, &record, sizeof(record));
    if (bytes > 0) {
      std::memcpy(at + sizeof(record), data, bytes);
    }
    written_ += need;
    ring_->written.store(written_, std::memory_order_release);
    return true;
  }

  /// Asks to be told when there is room. False if there is some already.
  bool await_room(uint64_t bytes) {
    ring_->sender_waits.store(1, std::memory_order_seq_cst);
    read_ = ring_->read.load(std::memory_order_seq_cst);
    return ShmRing::kBytes - (written_ - read_) < 2 * (bytes + sizeof(ShmRecord) + kShmLine);
  }

 private:
  bool all_read() {
    read_ = ring_->read.load(std::memory_order_acquire);
    return read_ == written_;
  }
  bool has_room(uint64_t need) {
    if (ShmRing::kBytes - (written_ - read_) >= need) {
      return true;
    }
    read_ = ring_->read.load(std::memory_order_acquire);
    return ShmRing::kBytes - (written_ - read_) >= need;
  }
  ShmRing* ring_;
  uint64_t written_;
  uint64_t read_ = 0;  ///< as last seen
};

/// The receiver's end of a ring.
class ShmRingReader {
 public:
  explicit ShmRingReader(ShmRing& ring) : ring_(&ring), read_(ring.read.load(std::memory_order_relaxed)) {}

  bool empty() const { return ring_->written.load(std::memory_order_acquire) == read_; }

  /// The next record and where its bytes lie; false if there is none. They stay until pop().
  bool front(ShmRecord& record, const char*& data) {
    while (!empty()) {
      const char* at = ring_->data + read_ % ShmRing::kBytes;
      std::memcpy(&record, at, sizeof(record));
      if (record.kind != ShmRecord::kSkip) {
        data = at + sizeof(record);
        return true;
      }
      read_ += ShmRing::kBytes - read_ % ShmRing::kBytes;
      ring_->read.store(read_, std::memory_order_release);
    }
    return false;
  }

  /// Gives the room of a record with so many bytes after it back. True when the sender waits for room and must be told:
  /// whoever empties the ring will be told so in time.
  bool pop(uint64_t following) {
    read_ += (sizeof(ShmRecord) + following + kShmLine - 1) / kShmLine * kShmLine;
    ring_->read.store(read_, std::memory_order_seq_cst);
    // Half of the ring at once: the sender may have to be woken for it.
    return ring_->sender_waits.load(std::memory_order_seq_cst) != 0 &&
           ring_->written.load(std::memory_order_relaxed) - read_ <= ShmRing::kBytes / 2 &&
           ring_->sender_waits.exchange(0, std::memory_order_seq_cst) != 0;
  }

 private:
  ShmRing* ring_;
  uint64_t read_;
};

}  // namespace shardpipe::comm
