#include "comm/message_group.h"

#include <ATen/Functions.h>

#include <cstring>

#include "comm/collectives.h"

namespace shardpipe::comm {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr int kDataTag = 16;  // beyond those of collectives.h
// Up to here everyone gets everything: one message's time instead of two.
constexpr int64_t kWholeBytes = 32 * 1024;

void copy_bytes(const at::Tensor& to, const at::Tensor& from) {
  if (from.nbytes() > 0 && to.const_data_ptr() != from.const_data_ptr()) {
    std::memmove(to.mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
  }
}

/// Messages to and from all others at once. Empty tensors are not sent.
class Exchange {
 public:
  explicit Exchange(const Transport& transport) : transport_(transport) {}
  void receive(const at::Tensor& out, int from) {
    if (out.nbytes() > 0) {
      receives_.push_back(transport_.irecv(out, from, kDataTag));
    }
  }
  void send(const at::Tensor& tensor, int to) {
    if (tensor.nbytes() > 0) {
      sends_.push_back(transport_.isend(tensor, to, kDataTag));
    }
  }
  /// The others in an order in which not all begin with the same.
  template <typename F>
  void each_other(const F& call) const {
    for (int step = 1; step < transport_.size(); ++step) {
      call((transport_.rank() + step) % transport_.size());
    }
  }
  void wait_receives() { wait(receives_); }
  void wait_all() {
    wait(receives_);
    wait(sends_);
  }

 private:
  static void wait(std::vector<MessageHandle>& handles) {
    for (MessageHandle& handle : handles) {
      handle.wait();
    }
    handles.clear();
  }
  const Transport& transport_;
  std::vector<MessageHandle> receives_;
  std::vector<MessageHandle> sends_;
};

/// Combines `parts` in the order of the ranks.
void reduce_tensors(const at::Tensor& out, const Tensors& parts, ReduceOp op) {
  std::vector<const void*> ins;
  ins.reserve(parts.size());
  for (const at::Tensor& part : parts) {
    ins.push_back(part.const_data_ptr());
  }
  reduce(out.scalar_type(), op, out.mutable_data_ptr(), ins, out.numel());
}

}  // namespace

void MessageGroup::all_reduce(const at::Tensor& tensor, ReduceOp op) {
  const int size = transport_.size();
  const int rank = transport_.rank();
  const at::Tensor flat = tensor.view({-1});
  if (static_cast<int64_t>(flat.nbytes()) <= kWholeBytes) {
    Tensors parts(size);
    parts[rank] = flat;
    Exchange exchange(transport_);
    exchange.each_other([&](int other) {
      parts[other] = at::empty_like(flat);
      exchange.receive(parts[other], other);
    });
    exchange.each_other([&](int other) { exchange.send(flat, other); });
    exchange.wait_all();
    reduce_tensors(flat, parts, op);
    return;
  }
  Tensors slices(size);
  for (int part = 0; part < size; ++part) {
    const int64_t begin = flat.numel() * part / size;
    slices[part] = flat.narrow(0, begin, flat.numel() * (part + 1) / size - begin);
  }
  reduce_scatter(slices[rank], slices, op);
  all_gather(slices, slices[rank]);
}

void MessageGroup::all_gather(const Tensors& outs, const at::Tensor& in) {
  Exchange exchange(transport_);
  exchange.each_other([&](int other) { exchange.receive(outs[other], other); });
  exchange.each_other([&](int other) { exchange.send(in, other); });
  copy_bytes(outs[transport_.rank()], in);
  exchange.wait_all();
}

void MessageGroup::reduce_scatter(const at::Tensor& out, const Tensors& ins, ReduceOp op) {
  const int rank = transport_.rank();
  Tensors parts(transport_.size());
  parts[rank] = ins[rank];
  Exchange exchange(transport_);
  exchange.each_other([&](int other) {
    parts[other] = at::empty_like(out);
    exchange.receive(parts[other], other);
  });
  exchange.each_other([&](int other) { exchange.send(ins[other], other); });
  exchange.wait_all();
  reduce_tensors(out, parts, op);
}

void MessageGroup::all_to_all(const Tensors& outs, const Tensors& ins) {
  // What is sent may be what is received into.
  Tensors arrived(outs);
  Exchange exchange(transport_);
  exchange.each_other([&](int other) {
    arrived[other] = at::empty_like(outs[other]);
    exchange.receive(arrived[other], other);
  });
  exchange.each_other([&](int other) { exchange.send(ins[other], other); });
  copy_bytes(outs[transport_.rank()], ins[transport_.rank()]);
  exchange.wait_all();
  exchange.each_other([&](int other) { copy_bytes(outs[other], arrived[other]); });
}

void MessageGroup::broadcast(const at::Tensor& tensor, int root) {
  // The root sends slices, which the others pass on to each other: everyone sends about as much as it gets.
  const int size = transport_.size();
  const int rank = transport_.rank();
  const at::Tensor flat = tensor.view({-1});
  Exchange exchange(transport_);
  if (static_cast<int64_t>(flat.nbytes()) <= kWholeBytes || size == 2) {
    if (rank != root) {
      exchange.receive(flat, root);
    } else {
      exchange.each_other([&](int other) { exchange.send(flat, other); });
    }
    exchange.wait_all();
    return;
  }
  const auto slice = [&](int part) {
    const int64_t begin = flat.numel() * part / size;
    return flat.narrow(0, begin, flat.numel() * (part + 1) / size - begin);
  };
  if (rank == root) {
    exchange.each_other([&](int other) { exchange.send(slice(other), other); });
    exchange.each_other([&](int other) { exchange.send(slice(root), other); });
  } else {
    exchange.receive(slice(rank), root);
    Exchange rest(transport_);
    rest.receive(slice(root), root);
    exchange.each_other([&](int other) {
      if (other != root) {
        rest.receive(slice(other), other);
      }
    });
    exchange.wait_receives();
    exchange.each_other([&](int other) {
      if (other != root) {
        rest.send(slice(rank), other);
      }
    });
    rest.wait_all();
  }
  exchange.wait_all();
}

int64_t MessageGroup::wait_ns() const {
  int64_t sum = 0;
  for (const PeerStatistics& peer : transport_.statistics()) {
    sum += peer.send_wait_ns + peer.receive_wait_ns;
  }
  return sum;
}

void MessageGroup::barrier() {
  comm::barrier(transport_);
}

}  // namespace shardpipe::comm
