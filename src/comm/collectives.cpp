#include "comm/collectives.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

constexpr int64_t kPieceBytes = 4 << 20;
constexpr int kSizeTag = 0;
constexpr int kPieceTag = 1;
constexpr int kBarrierTag = 2;

/// Sends a stream of pieces to some ranks. The pieces are copied into a few tensors of its own: when an exception
/// leaves the caller's bytes behind, a send under way may still read.
class PieceSender {
 public:
  PieceSender(const Transport& transport, std::vector<int> to, int64_t total)
      : transport_(transport), to_(std::move(to)) {
    ControlRecord record;
    record.count = total;
    for (const int rank : to_) {
      slots_[0].handles.push_back(transport_.isend(to_tensor(record), rank, kSizeTag));
    }
  }

  void send(const char* data, int64_t length) {
    if (to_.empty()) {
      return;
    }
    next_ = (next_ + 1) % slots_.size();
    Slot& slot = slots_[next_];
    wait(slot);
    if (!slot.buffer.defined()) {
      slot.buffer = at::empty({kPieceBytes}, at::kByte);
    }
    std::memcpy(slot.buffer.mutable_data_ptr(), data, length);
    const at::Tensor piece = slot.buffer.narrow(0, 0, length);
    for (const int rank : to_) {
      slot.handles.push_back(transport_.isend(piece, rank, kPieceTag));
    }
  }

  void finish() {
    for (Slot& slot : slots_) {
      wait(slot);
    }
  }

 private:
  struct Slot {
    at::Tensor buffer;
    std::vector<MessageHandle> handles;
  };
  static void wait(Slot& slot) {
    for (MessageHandle& handle : slot.handles) {
      handle.wait();
    }
    slot.handles.clear();
  }

  const Transport& transport_;
  std::vector<int> to_;
  std::array<Slot, 3> slots_;
  size_t next_ = 0;
};

void send_all(const Transport& transport, const std::string& bytes, std::vector<int> to) {
  const auto total = static_cast<int64_t>(bytes.size());
  PieceSender sender(transport, std::move(to), total);
  for (int64_t at = 0; at < total; at += kPieceBytes) {
    sender.send(bytes.data() + at, std::min(kPieceBytes, total - at));
  }
  sender.finish();
}

/// Receives what send_all sends, and passes each piece on.
void receive_all(const Transport& transport, std::string& bytes, int from, std::vector<int> to) {
  const at::Tensor header = empty_control_record();
  transport.irecv(header, from, kSizeTag).wait();
  const int64_t total = control_record(header).count;
  bytes.clear();
  bytes.resize(total);
  PieceSender sender(transport, std::move(to), total);
  // The next piece is received while this one goes on.
  const auto post = [&](int64_t at) {
    return at < total
               ? transport.irecv(
                     at::from_blob(bytes.data() + at, {std::min(kPieceBytes, total - at)}, at::kByte), from, kPieceTag)
               : MessageHandle();
  };
  MessageHandle current = post(0);
  for (int64_t at = 0; at < total; at += kPieceBytes) {
    MessageHandle next = post(at + kPieceBytes);
    current.wait();
    sender.send(bytes.data() + at, std::min(kPieceBytes, total - at));
    current = std::move(next);
  }
  sender.finish();
}

}  // namespace

void broadcast(const Transport& transport, std::string& bytes, int root) {
  // Binomial tree over the ranks counted from the root: the parent of v is v without its lowest set bit.
  const int size = transport.size();
  const int self = (transport.rank() - root + size) % size;
  const auto member = [&](int v) { return (v + root) % size; };
  const int lowest = self == 0 ? size : self & -self;
  std::vector<int> children;
  for (int bit = 1; bit < lowest && self + bit < size; bit *= 2) {
    children.insert(children.begin(), member(self + bit));
  }
  if (self == 0) {
    send_all(transport, bytes, std::move(children));
  } else {
    receive_all(transport, bytes, member(self - lowest), std::move(children));
  }
}

std::vector<std::string> gather(const Transport& transport, const std::string& bytes) {
  if (transport.rank() != 0) {
    send_all(transport, bytes, {0});
    return {};
  }
  std::vector<std::string> all(transport.size());
  all[0] = bytes;
  for (int rank = 1; rank < transport.size(); ++rank) {
    receive_all(transport, all[rank], rank, {});
  }
  return all;
}

void barrier(const Transport& transport) {
  // Dissemination: after round k each rank has heard of the 2^k ranks before it.
  const int size = transport.size();
  const at::Tensor token = at::zeros({1}, at::kByte);
  for (int step = 1, round = 0; step < size; step *= 2, ++round) {
    const at::Tensor heard = at::empty({1}, at::kByte);
    MessageHandle receive = transport.irecv(heard, (transport.rank() - step + size) % size, kBarrierTag + round);
    MessageHandle send = transport.isend(token, (transport.rank() + step) % size, kBarrierTag + round);
    receive.wait();
    send.wait();
  }
}

}  // namespace shardpipe::comm
