#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comm/transport.h"

namespace shardpipe::runtime {

/// Sends values whose kind and shape the receiver cannot compute: one header for all, then one message a tensor.
/// A value is a tensor (any dtype, shape and strides, empty ones too), an integer, a float, a bool or None; an
/// undefined tensor is None. Nothing is sent for an empty list. Returns the bytes sent; never blocks. The tensors'
/// contents must not change before the messages have left. Throws Error(internal) for other kinds, layouts and more
/// than 32 dimensions.
int64_t send_bundle(const comm::Transport& transport, const std::vector<c10::IValue>& values, int dst, int tag);

struct Received {
  c10::IValue value;           ///< tensors have the sender's strides, or are contiguous where those leave wide gaps
  bool requires_grad = false;  ///< of the sender's tensor
};

/// What send_bundle sent: as many values as were given to it, tensors on `device`. What is sent over a transport that
/// goes from device to device must be on the sender's device too.
std::vector<Received> receive_bundle(
    const comm::Transport& transport, size_t count, int src, int tag, at::Device device = at::kCPU);

/// The value, if it is a tensor on the device.
c10::IValue to_device(const c10::IValue& value, at::Device device);

/// A text as a tensor of its bytes, and back.
at::Tensor bytes_of(const std::string& text);
std::string text_of(const at::Tensor& bytes);

}  // namespace shardpipe::runtime
