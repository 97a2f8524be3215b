#include "comm/message_group.h"

#include <ATen/Functions.h>

#include <cstring>

#include "comm/collectives.h"
#include "comm/reduce_tensors.h"

namespace shardpipe::comm {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr int kDataTag = 16;  // beyond those of collectives.h
// Up to here everyone gets everything: one message's time instead of two.
constexpr int64_t kWholeBytes = 32 * 1024;

void copy_bytes(const at::Tensor& to, const at::Tensor& from) {
  if (from.nbytes() == 0 || to.const_data_ptr() == from.const_data_ptr()) {
    return;
  }
  if (to.device().is_cpu()) {
    std::memmove(to.mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
  } else {
    to.view({-1}).copy_(from.view({-1}));
  }
}

/// Messages to and from all others at once.
class TransportExchange final : public Exchange {
 public:
  explicit TransportExchange(const Transport& transport) : transport_(transport) {}
  int rank() const override { return transport_.rank(); }
  int size() const override { return transport_.size(); }

  void run(const Tensors& outs, const Tensors& ins) override {
    const auto is_sent = [](const at::Tensor& tensor) { return tensor.defined() && tensor.nbytes() > 0; };
    std::vector<MessageHandle> handles;
    each_other([&](int other) {
      if (is_sent(outs[other])) {
        handles.push_back(transport_.irecv(outs[other], other, kDataTag));
      }
    });
    each_other([&](int other) {
      if (is_sent(ins[other])) {
        handles.push_back(transport_.isend(ins[other], other, kDataTag));
      }
    });
    for (MessageHandle& handle : handles) {
      handle.wait();
    }
  }

  void barrier() override { comm::barrier(transport_); }

  int64_t wait_ns() const override { return transport_.wait_ns(); }

 private:
  /// The others in an order in which not all begin with the same.
  template <typename F>
  void each_other(const F& call) const {
    for (int step = 1; step < size(); ++step) {
      call((rank() + step) % size());
    }
  }

  Transport transport_;
};

/// Even slices, one a rank.
Tensors slices_of(const at::Tensor& flat, int size) {
  Tensors slices(size);
  for (int part = 0; part < size; ++part) {
    const int64_t begin = flat.numel() * part / size;
    slices[part] = flat.narrow(0, begin, flat.numel() * (part + 1) / size - begin);
  }
  return slices;
}

}  // namespace

MessageGroup::MessageGroup(const Transport& transport, std::string name)
    : MessageGroup(std::make_unique<TransportExchange>(transport), std::move(name)) {}

void MessageGroup::all_reduce(const at::Tensor& tensor, ReduceOp op) {
  const int size = exchange_->size();
  const int rank = exchange_->rank();
  const at::Tensor flat = tensor.view({-1});
  if (static_cast<int64_t>(flat.nbytes()) <= kWholeBytes) {
    Tensors parts(size);
    for (int other = 0; other < size; ++other) {
      parts[other] = other == rank ? flat : at::empty_like(flat);
    }
    exchange_->run(parts, Tensors(size, flat));
    reduce_tensors(flat, parts, op);
    return;
  }
  const Tensors slices = slices_of(flat, size);
  reduce_scatter(slices[rank], slices, op);
  all_gather(slices, slices[rank]);
}

void MessageGroup::all_gather(const Tensors& outs, const at::Tensor& in) {
  exchange_->run(outs, Tensors(outs.size(), in));
  copy_bytes(outs[exchange_->rank()], in);
}

void MessageGroup::reduce_scatter(const at::Tensor& out, const Tensors& ins, ReduceOp op) {
  const int rank = exchange_->rank();
  Tensors parts(ins.size());
  for (int other = 0; other < exchange_->size(); ++other) {
    parts[other] = other == rank ? ins[rank] : at::empty_like(out);
  }
  exchange_->run(parts, ins);
  reduce_tensors(out, parts, op);
}

void MessageGroup::all_to_all(const Tensors& outs, const Tensors& ins) {
  // What is sent may be what is received into.
  const int rank = exchange_->rank();
  Tensors arrived(outs);
  for (int other = 0; other < exchange_->size(); ++other) {
    if (other != rank) {
      arrived[other] = at::empty_like(outs[other]);
    }
  }
  exchange_->run(arrived, ins);
  arrived[rank] = ins[rank];
  for (int other = 0; other < exchange_->size(); ++other) {
    copy_bytes(outs[other], arrived[other]);
  }
}

void MessageGroup::broadcast(const at::Tensor& tensor, int root) {
  const int size = exchange_->size();
  const int rank = exchange_->rank();
  const at::Tensor flat = tensor.view({-1});
  const auto round = [&](const auto& out, const auto& in) {
    Tensors outs(size);
    Tensors ins(size);
    for (int other = 0; other < size; ++other) {
      if (other != rank) {
        outs[other] = out(other);
        ins[other] = in(other);
      }
    }
    exchange_->run(outs, ins);
  };
  const at::Tensor nothing;
  if (static_cast<int64_t>(flat.nbytes()) <= kWholeBytes || size == 2) {
    round(
        [&](int other) { return other == root ? flat : nothing; }, [&](int) { return rank == root ? flat : nothing; });
    return;
  }
  // The root sends slices, which all pass on to each other: everyone sends about as much as it gets.
  const Tensors slices = slices_of(flat, size);
  round(
      [&](int other) { return other == root ? slices[rank] : nothing; },
      [&](int other) { return rank == root ? slices[other] : nothing; });
  round(
      [&](int other) { return rank == root ? nothing : slices[other]; },
      [&](int other) { return other == root ? nothing : slices[rank]; });
}

}  // namespace shardpipe::comm
