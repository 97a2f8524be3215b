#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/transport.h"

namespace shardpipe::comm {

class ShmMessages;

/// A message under way through shared memory; who changes what is said in shm_messages.h.
class ShmMessage final : public Message {
 public:
  explicit ShmMessage(ShmMessages& owner) : owner_(owner) {}

  void wait() override;
  bool done() override;

  enum State : int { kPending, kDone };
  bool is_done() const { return state.load(std::memory_order_acquire) == kDone; }

  at::Tensor tensor;
  bool is_send = false;
  int peer = 0;  ///< in the group
  int tag = 0;
  uint64_t id = 0;             ///< of a large one
  uint64_t moved = 0;          ///< bytes so far, where it goes in parts
  uint64_t arrived_bytes = 0;  ///< of a receive: what the sender sent, which must be what was asked for
  std::atomic<int> state{kPending};
  ShmMessage* next = nullptr;

 protected:
  void recycle() override;

 private:
  ShmMessages& owner_;
};

/// Messages one after the other; each holds a reference.
class ShmQueue {
 public:
  bool empty() const { return first_ == nullptr; }
  ShmMessage* front() const { return first_; }
  void push(ShmMessage* message);
  /// Without its reference, which goes to the caller.
  ShmMessage* pop();
  /// The first with this tag, likewise; nullptr if there is none.
  ShmMessage* take(int tag);

 private:
  ShmMessage* first_ = nullptr;
  ShmMessage* last_ = nullptr;
};

/// What came before it was asked for.
struct ShmArrival {
  int tag = 0;
  uint64_t bytes = 0;
  std::unique_ptr<char[]> data;  ///< nullptr: a large one, still in the sender
  uint64_t id = 0;
};

}  // namespace shardpipe::comm
