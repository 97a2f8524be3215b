#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace shardpipe::comm {

/// What went between this rank and one peer. Times are those that the compute thread spent in MessageHandle::wait.
struct PeerStatistics {
  int64_t messages_sent = 0;
  int64_t messages_received = 0;
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  int64_t send_wait_ns = 0;
  int64_t receive_wait_ns = 0;
};

/// One message under way: what a backend implements behind MessageHandle. Kept in the backend's pool, counted by
/// handles and by the backend's own threads.
class Message {
 public:
  /// Returns when the message has left or arrived. Throws Error(rank).
  virtual void wait() = 0;
  /// True when wait() would return or throw at once.
  virtual bool done() = 0;

  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      recycle();
    }
  }

 protected:
  virtual ~Message() = default;
  /// Nobody refers to the message any more.
  virtual void recycle() = 0;

 private:
  std::atomic<int> references_{0};
};

/// A message that was begun. Default: none, which is done.
class MessageHandle {
 public:
  MessageHandle() = default;
  explicit MessageHandle(Message* message) : message_(message) {
    if (message_ != nullptr) {
      message_->retain();
    }
  }
  MessageHandle(MessageHandle&& other) noexcept
      : message_(std::exchange(other.message_, nullptr)),
        wait_ns_(other.wait_ns_),
        out_(std::move(other.out_)),
        arriving_(std::move(other.arriving_)) {}
  MessageHandle& operator=(MessageHandle&& other) noexcept {
    std::swap(message_, other.message_);
    std::swap(wait_ns_, other.wait_ns_);
    std::swap(out_, other.out_);
    std::swap(arriving_, other.arriving_);
    return *this;
  }
  ~MessageHandle() {
    if (message_ != nullptr) {
      message_->release();
    }
  }

  /// Blocks until the receive's tensor is filled, or the send's may be changed, and drops the message. Throws
  /// Error(rank) when the peer is gone or any rank has failed. A receive must be waited for; a send need not.
  void wait();
  /// True when wait() would not block. Costs a waiting thread where the backend cannot look (Gloo).
  bool done() const { return message_ == nullptr || message_->done(); }

 private:
  friend class Transport;
  Message* message_ = nullptr;
  int64_t* wait_ns_ = nullptr;  ///< the statistics' counter; the Transport's group outlives its messages
  at::Tensor out_;              ///< of a receive through host memory: what wait() fills
  at::Tensor arriving_;         ///< what the message comes into then
};

/// What a transport implements: messages between the ranks of one group, numbered within it. Messages of one pair and
/// tag arrive in the order in which they were sent. Called by one thread at a time.
class TransportBackend {
 public:
  virtual ~TransportBackend() = default;
  /// A dense, contiguous tensor on the CPU (of a device backend: on the rank's device), kept alive until it has left;
  /// its contents must not change before.
  virtual MessageHandle isend(const at::Tensor& tensor, int dst, int tag) = 0;
  /// Fills `out`, of as many bytes as were sent: both ends compute the shape, and Gloo ends the process when more
  /// arrives. The sooner it is posted, the sooner the sender can begin.
  virtual MessageHandle irecv(const at::Tensor& out, int src, int tag) = 0;
};

/// Messages within one group of ranks: a value that refers to the group. A rank may send to itself; a group of one rank
/// (the default) does nothing else. Tensors of a device go through the device backend where there is one, else through
/// host memory; where they are must be the same on both ends.
class Transport {
 public:
  static constexpr int kMaxTag = (1 << 24) - 1;

  Transport();
  /// `ranks`: the members' numbers in the world, in the order of the group; `rank`: this one's number in the group.
  /// `first_tag` is added to all tags, so that several transports can share one backend.
  Transport(
      std::shared_ptr<TransportBackend> backend,
      std::vector<int> ranks,
      int rank,
      int first_tag = 0,
      std::shared_ptr<TransportBackend> device_backend = nullptr);

  /// Over the same connections, with tags of its own from `first_tag` on.
  Transport with_tags(int first_tag) const;

  int rank() const;
  int size() const;
  /// Numbers in the world.
  const std::vector<int>& ranks() const;

  /// Never block, but for a device whose tensors are copied to the host first. Tensors are contiguous, of any dtype,
  /// empty ones too; ranks are the group's; tags 0 to kMaxTag. Throw Error(internal) when that does not hold,
  /// Error(rank) when the peer is gone.
  MessageHandle isend(const at::Tensor& tensor, int dst, int tag = 0) const;
  MessageHandle irecv(const at::Tensor& out, int src, int tag = 0) const;

  /// Since the group began, by rank of the group.
  const std::vector<PeerStatistics>& statistics() const;
  /// Of them all together: time spent in MessageHandle::wait.
  int64_t wait_ns() const;

 private:
  struct Group;
  bool through_host(const at::Tensor& tensor, int peer) const;
  TransportBackend& backend_of(const at::Tensor& tensor) const;
  std::shared_ptr<Group> group_;
};

/// A few numbers that go ahead of data whose shape the receiver cannot compute.
struct ControlRecord {
  static constexpr int64_t kMagic = 0x53504354524c3031;  ///< "SPCTRL01"
  int64_t magic = kMagic;
  int64_t step = 0;
  int64_t lane = 0;
  int64_t count = 0;
  std::array<int64_t, 12> values{};
};
static_assert(sizeof(ControlRecord) == 16 * sizeof(int64_t));

/// An int64 tensor of one record (a copy), and back. Throws Error(internal) when it holds none.
at::Tensor to_tensor(const ControlRecord& record);
ControlRecord control_record(const at::Tensor& tensor);
/// An uninitialised tensor to receive a record into.
at::Tensor empty_control_record();

}  // namespace shardpipe::comm
