#include "comm/ordered_messages.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <deque>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

constexpr int kHeaderTag = 32;  // beyond those of collectives.h

struct Header {
  int64_t tag = 0;
  int64_t bytes = 0;
};

at::Tensor empty_header() {
  return at::empty({2}, at::kLong);
}

/// A message that has come, or is on its way, into memory of its own.
struct Unexpected {
  int tag = 0;
  at::Tensor buffer;                         ///< bytes
  std::unique_ptr<DeviceTransfer> transfer;  ///< begun; none for an empty message
};

at::Tensor bytes_of(const at::Tensor& tensor) {
  return tensor.view({-1}).view(at::kByte);
}

}  // namespace

struct OrderedMessages::State {
  struct Peer {
    std::deque<ReceiveMessage*> requests;  ///< without a message yet, the oldest first
    std::deque<Unexpected> unexpected;
    at::Tensor header;
    MessageHandle arriving;  ///< of `header`: posted while there are requests
    bool posted = false;
  };
  State(std::shared_ptr<DeviceChannel> to, const Transport& over)
      : channel(std::move(to)), host(over), peers(static_cast<size_t>(over.size())) {}

  /// Receives one header ahead, but none that might never come: each request stands for at least one more message.
  void post(int src) {
    Peer& peer = peers[static_cast<size_t>(src)];
    if (!peer.requests.empty() && !peer.posted) {
      peer.header = empty_header();
      peer.arriving = host.irecv(peer.header, src, kHeaderTag);
      peer.posted = true;
    }
  }

  bool header_is_here(int src) const { return peers[static_cast<size_t>(src)].arriving.done(); }
  /// Waits for the next header of a rank that something is asked of, and begins the receive that it belongs to.
  void take_next(int src);

  void check_size(int src, int64_t tag, int64_t bytes, const at::Tensor& out) const {
    if (bytes != static_cast<int64_t>(out.nbytes())) {
      throw_internal(
          "message from rank {} to rank {} (tag {}) has {} bytes, its receive {}",
          host.ranks()[static_cast<size_t>(src)], host.ranks()[static_cast<size_t>(host.rank())], tag, bytes,
          out.nbytes());
    }
  }

  std::shared_ptr<DeviceChannel> channel;
  Transport host;
  std::vector<Peer> peers;
};

class OrderedMessages::SendMessage final : public Message {
 public:
  explicit SendMessage(std::unique_ptr<DeviceTransfer> transfer) : transfer_(std::move(transfer)) {}
  void wait() override { transfer_->join(); }
  bool done() override { return true; }

 protected:
  void recycle() override { delete this; }

 private:
  std::unique_ptr<DeviceTransfer> transfer_;
};

class OrderedMessages::ReceiveMessage final : public Message {
 public:
  ReceiveMessage(std::shared_ptr<State> state, const at::Tensor& out, int src, int tag)
      : state_(std::move(state)), out_(out), src_(src), tag_(tag) {
    if (out.nbytes() > 0) {
      transfer_ = state_->channel->recv(out, src);
    }
  }

  void wait() override {
    while (!arrived_) {
      state_->take_next(src_);
    }
    if (transfer_) {
      transfer_->join();
    }
    if (buffer_.defined()) {
      bytes_of(out_).copy_(buffer_);
    }
  }
  bool done() override {
    while (!arrived_ && state_->header_is_here(src_)) {
      state_->take_next(src_);
    }
    return arrived_;
  }

  int tag() const { return tag_; }
  const at::Tensor& out() const { return out_; }
  /// Its message is the channel's next one.
  void begin() {
    if (transfer_) {
      transfer_->begin();
    }
    arrived_ = true;
  }
  /// Its message came before.
  void take(Unexpected message) {
    transfer_ = std::move(message.transfer);
    if (out_.nbytes() > 0) {
      buffer_ = std::move(message.buffer);
    }
    arrived_ = true;
  }

 protected:
  void recycle() override {
    if (!arrived_) {
      std::erase(state_->peers[static_cast<size_t>(src_)].requests, this);
    }
    delete this;
  }

 private:
  std::shared_ptr<State> state_;
  at::Tensor out_;
  int src_;
  int tag_;
  std::unique_ptr<DeviceTransfer> transfer_;
  at::Tensor buffer_;  ///< of an unexpected message
  bool arrived_ = false;
};

void OrderedMessages::State::take_next(int src) {
  Peer& peer = peers[static_cast<size_t>(src)];
  peer.arriving.wait();
  peer.posted = false;
  const auto* words = peer.header.const_data_ptr<int64_t>();
  const Header header{words[0], words[1]};
  const auto found = std::find_if(peer.requests.begin(), peer.requests.end(), [&](const ReceiveMessage* request) {
    return request->tag() == header.tag;
  });
  if (found != peer.requests.end()) {
    ReceiveMessage& request = **found;
    check_size(src, header.tag, header.bytes, request.out());
    peer.requests.erase(found);
    request.begin();
  } else {
    Unexpected message;
    message.tag = static_cast<int>(header.tag);
    message.buffer = at::empty({header.bytes}, peer.requests.front()->out().options().dtype(at::kByte));
    if (header.bytes > 0) {
      message.transfer = channel->recv(message.buffer, src);
      message.transfer->begin();
    }
    peer.unexpected.push_back(std::move(message));
  }
  post(src);
}

OrderedMessages::OrderedMessages(std::shared_ptr<DeviceChannel> channel, const Transport& host)
    : state_(std::make_shared<State>(std::move(channel), host)) {}

MessageHandle OrderedMessages::isend(const at::Tensor& tensor, int dst, int tag) {
  std::unique_ptr<DeviceTransfer> transfer;
  if (tensor.nbytes() > 0) {
    transfer = state_->channel->send(tensor, dst);
  }
  const at::Tensor header = empty_header();
  auto* words = header.mutable_data_ptr<int64_t>();
  words[0] = tag;
  words[1] = static_cast<int64_t>(tensor.nbytes());
  state_->host.isend(header, dst, kHeaderTag);
  if (!transfer) {
    return MessageHandle();
  }
  transfer->begin();
  return MessageHandle(new SendMessage(std::move(transfer)));
}

MessageHandle OrderedMessages::irecv(const at::Tensor& out, int src, int tag) {
  auto* message = new ReceiveMessage(state_, out, src, tag);
  MessageHandle handle(message);
  State::Peer& peer = state_->peers[static_cast<size_t>(src)];
  const auto early = std::find_if(peer.unexpected.begin(), peer.unexpected.end(), [&](const Unexpected& unexpected) {
    return unexpected.tag == tag;
  });
  if (early != peer.unexpected.end()) {
    state_->check_size(src, tag, early->buffer.numel(), out);
    message->take(std::move(*early));
    peer.unexpected.erase(early);
    return handle;
  }
  peer.requests.push_back(message);
  state_->post(src);
  return handle;
}

}  // namespace shardpipe::comm
