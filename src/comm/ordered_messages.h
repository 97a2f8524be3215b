#pragma once

#include <memory>

#include "comm/device_channel.h"
#include "comm/transport.h"

namespace shardpipe::comm {

/// Messages with tags over a channel that has none. Each send first sends a header (tag, size) over `host`, then goes
/// to the channel; the receiver reads the headers in their order and begins for each the receive that it belongs to,
/// wherever the caller waits first. So both ends begin the same transfers in the same order, and none waits for ever
/// behind another. What comes before it was asked for goes into memory of its own.
///
/// A message is "done" when it is on the device's queue: what the current stream gets after wait() comes after it. A
/// send whose tensor is to be changed must be waited for, one that is dropped need not.
///
/// `host` connects the same ranks and serves nothing else. Waits end with its Error(rank) when a rank is gone. Throws
/// Error(internal) from wait() and done() of a receive whose size is not that of its message.
class OrderedMessages final : public TransportBackend {
 public:
  OrderedMessages(std::shared_ptr<DeviceChannel> channel, const Transport& host);

  MessageHandle isend(const at::Tensor& tensor, int dst, int tag) override;
  MessageHandle irecv(const at::Tensor& out, int src, int tag) override;

 private:
  struct State;
  class SendMessage;
  class ReceiveMessage;
  std::shared_ptr<State> state_;
};

}  // namespace shardpipe::comm
