#include "comm/transport.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cstring>

#include "base/error.h"
#include "comm/loopback.h"

namespace shardpipe::comm {

struct Transport::Group {
  std::shared_ptr<TransportBackend> backend;
  std::shared_ptr<TransportBackend> device_backend;
  std::vector<int> ranks;
  int rank = 0;
  int first_tag = 0;
  Loopback self;
  std::vector<PeerStatistics> statistics;
};

void MessageHandle::wait() {
  if (message_ != nullptr) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point start = Clock::now();
    message_->wait();
    if (wait_ns_ != nullptr) {
      *wait_ns_ += std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
    }
    std::exchange(message_, nullptr)->release();
  }
  if (out_.defined()) {
    const at::NoGradGuard no_grad;
    std::exchange(out_, {}).copy_(arriving_);
    arriving_.reset();
  }
}

Transport::Transport() : Transport(nullptr, {0}, 0) {}

Transport::Transport(
    std::shared_ptr<TransportBackend> backend,
    std::vector<int> ranks,
    int rank,
    int first_tag,
    std::shared_ptr<TransportBackend> device_backend)
    : group_(std::make_shared<Group>()) {
  group_->backend = std::move(backend);
  group_->device_backend = std::move(device_backend);
  group_->statistics.resize(ranks.size());
  group_->ranks = std::move(ranks);
  group_->rank = rank;
  group_->first_tag = first_tag;
}

Transport Transport::with_tags(int first_tag) const {
  return {group_->backend, group_->ranks, group_->rank, first_tag, group_->device_backend};
}

int Transport::rank() const {
  return group_->rank;
}

int Transport::size() const {
  return static_cast<int>(group_->ranks.size());
}

const std::vector<int>& Transport::ranks() const {
  return group_->ranks;
}

const std::vector<PeerStatistics>& Transport::statistics() const {
  return group_->statistics;
}

int64_t Transport::wait_ns() const {
  int64_t sum = 0;
  for (const PeerStatistics& peer : group_->statistics) {
    sum += peer.send_wait_ns + peer.receive_wait_ns;
  }
  return sum;
}

namespace {

void check(const char* what, const at::Tensor& tensor, int peer, int size, int tag) {
  if (!tensor.defined() || tensor.is_meta() || tensor.layout() != at::kStrided || !tensor.is_contiguous()) {
    throw_internal(
        "{} needs a contiguous tensor, this one is {}", what,
        !tensor.defined()  ? "undefined"
        : tensor.is_meta() ? "on meta"
                           : "not contiguous");
  }
  if (peer < 0 || peer >= size) {
    throw_internal("{} names rank {}, the group has ranks 0 to {}", what, peer, size - 1);
  }
  if (tag < 0 || tag > Transport::kMaxTag) {
    throw_internal("{} has tag {}, must be 0 to {}", what, tag, Transport::kMaxTag);
  }
}

}  // namespace

bool Transport::through_host(const at::Tensor& tensor, int peer) const {
  return !tensor.is_cpu() && (peer == group_->rank || !group_->device_backend);
}

TransportBackend& Transport::backend_of(const at::Tensor& tensor) const {
  return tensor.is_cpu() ? *group_->backend : *group_->device_backend;
}

MessageHandle Transport::isend(const at::Tensor& tensor, int dst, int tag) const {
  check("isend", tensor, dst, size(), tag);
  PeerStatistics& peer = group_->statistics[dst];
  ++peer.messages_sent;
  peer.bytes_sent += static_cast<int64_t>(tensor.nbytes());
  const at::Tensor sent = through_host(tensor, dst) ? tensor.detach().to(at::kCPU) : tensor;
  MessageHandle handle =
      dst == group_->rank ? group_->self.isend(sent, tag) : backend_of(sent).isend(sent, dst, group_->first_tag + tag);
  handle.wait_ns_ = &peer.send_wait_ns;
  return handle;
}

MessageHandle Transport::irecv(const at::Tensor& out, int src, int tag) const {
  check("irecv", out, src, size(), tag);
  PeerStatistics& peer = group_->statistics[src];
  ++peer.messages_received;
  peer.bytes_received += static_cast<int64_t>(out.nbytes());
  const bool staged = through_host(out, src);
  const at::Tensor filled = staged ? at::empty(out.sizes(), out.options().device(at::kCPU)) : out;
  MessageHandle handle = src == group_->rank ? group_->self.irecv(filled, tag)
                                             : backend_of(filled).irecv(filled, src, group_->first_tag + tag);
  if (staged) {
    handle.out_ = out;
    handle.arriving_ = filled;
  }
  handle.wait_ns_ = &peer.receive_wait_ns;
  return handle;
}

at::Tensor to_tensor(const ControlRecord& record) {
  at::Tensor tensor = empty_control_record();
  std::memcpy(tensor.mutable_data_ptr(), &record, sizeof(record));
  return tensor;
}

ControlRecord control_record(const at::Tensor& tensor) {
  ControlRecord record;
  if (tensor.nbytes() != sizeof(record)) {
    throw_internal("a control record has {} bytes, this tensor {}", sizeof(record), tensor.nbytes());
  }
  std::memcpy(&record, tensor.const_data_ptr(), sizeof(record));
  if (record.magic != ControlRecord::kMagic) {
    throw_internal("a control record was expected, something else arrived (it begins with {:#x})", record.magic);
  }
  return record;
}

at::Tensor empty_control_record() {
  return at::empty({static_cast<int64_t>(sizeof(ControlRecord) / sizeof(int64_t))}, at::kLong);
}

}  // namespace shardpipe::comm
