#pragma once

// Devices that exchange as strictly as NCCL's streams do, in this process.
#include <ATen/ATen.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <tuple>

#include "comm/device_channel.h"

namespace shardpipe::comm::test {

/// The streams of one communicator's two ends: what is enqueued on one end meets what the other end has enqueued as its
/// n-th, when all before has met; never, when both send, both receive or the sizes differ.
class StrictStream {
 public:
  struct Operation {
    at::Tensor tensor;
    bool is_send = false;
    bool done = false;
  };

  void enqueue(int end, const std::shared_ptr<Operation>& operation) {
    const std::lock_guard lock(mutex_);
    waiting_[end].push_back(operation);
    while (!waiting_[0].empty() && !waiting_[1].empty()) {
      Operation& a = *waiting_[0].front();
      Operation& b = *waiting_[1].front();
      if (a.is_send == b.is_send || a.tensor.nbytes() != b.tensor.nbytes()) {
        return;
      }
      const Operation& from = a.is_send ? a : b;
      const Operation& to = a.is_send ? b : a;
      std::memcpy(to.tensor.mutable_data_ptr(), from.tensor.const_data_ptr(), from.tensor.nbytes());
      a.done = b.done = true;
      waiting_[0].pop_front();
      waiting_[1].pop_front();
      changed_.notify_all();
    }
  }

  /// Throws where the device would stand still for ever.
  void wait(const Operation& operation, std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, limit, [&] { return operation.done; })) {
      throw std::runtime_error("the device stands still");
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Operation>> waiting_[2];
};

/// What all ranks share.
class StrictDevices {
 public:
  explicit StrictDevices(bool one_stream_a_pair = false, std::chrono::milliseconds limit = std::chrono::seconds(30))
      : limit_(limit), one_stream_a_pair_(one_stream_a_pair) {}

  StrictStream& stream(int src, int dst) {
    const std::lock_guard lock(mutex_);
    return streams_[{std::min(src, dst), std::max(src, dst), !one_stream_a_pair_ && src < dst}];
  }
  std::chrono::milliseconds limit() const { return limit_; }

 private:
  std::chrono::milliseconds limit_;
  bool one_stream_a_pair_;
  std::mutex mutex_;
  std::map<std::tuple<int, int, bool>, StrictStream> streams_;
};

class StrictChannel final : public DeviceChannel {
 public:
  StrictChannel(StrictDevices& devices, int rank) : devices_(devices), rank_(rank) {}

  std::unique_ptr<DeviceTransfer> send(const at::Tensor& tensor, int dst) override {
    return std::make_unique<Transfer>(devices_, devices_.stream(rank_, dst), rank_ < dst ? 0 : 1, tensor, true);
  }
  std::unique_ptr<DeviceTransfer> recv(const at::Tensor& out, int src) override {
    return std::make_unique<Transfer>(devices_, devices_.stream(src, rank_), rank_ < src ? 0 : 1, out, false);
  }

 private:
  class Transfer final : public DeviceTransfer {
   public:
    Transfer(const StrictDevices& devices, StrictStream& stream, int end, const at::Tensor& tensor, bool is_send)
        : devices_(devices),
          stream_(stream),
          end_(end),
          operation_(std::make_shared<StrictStream::Operation>(StrictStream::Operation{tensor, is_send})) {}
    void begin() override { stream_.enqueue(end_, operation_); }
    void join() override { stream_.wait(*operation_, devices_.limit()); }

   private:
    const StrictDevices& devices_;
    StrictStream& stream_;
    int end_;
    std::shared_ptr<StrictStream::Operation> operation_;
  };

  StrictDevices& devices_;
  int rank_;
};

}  // namespace shardpipe::comm::test
