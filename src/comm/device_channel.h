#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace shardpipe::comm {

/// A transfer of a DeviceChannel that was made and is not begun yet.
class DeviceTransfer {
 public:
  virtual ~DeviceTransfer() = default;
  /// Enqueues it, to come after what the current stream held when the transfer was made, and returns.
  virtual void begin() = 0;
  /// After begin(): what is put on the current stream from now on comes after the transfer.
  virtual void join() = 0;
};

/// Messages between devices as NCCL has them: without tags, the n-th begun send of one rank to another fills the n-th
/// begun receive, and a send may last until its receive has begun. The two directions of a pair, and different pairs,
/// do not wait for each other. Called by one thread at a time.
class DeviceChannel {
 public:
  virtual ~DeviceChannel() = default;
  /// Contiguous tensors of at least one byte. They stay alive until the transfer is done.
  virtual std::unique_ptr<DeviceTransfer> send(const at::Tensor& tensor, int dst) = 0;
  virtual std::unique_ptr<DeviceTransfer> recv(const at::Tensor& out, int src) = 0;
};

}  // namespace shardpipe::comm
