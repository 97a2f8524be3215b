#include "comm/c10d_backend.h"

#include <ATen/ATen.h>

#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>

#include "base/error.h"
#include "comm/connections.h"

namespace shardpipe::comm {
namespace {

using Tensors = std::vector<at::Tensor>;
using WorkPtr = c10::intrusive_ptr<c10d::Work>;

/// What was done before it is returned.
class DoneWork final : public c10d::Work {
 public:
  DoneWork(int rank, c10d::OpType type, Tensors result)
      : Work(rank, type),
        result_(std::move(result)),
        future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {
    future_->markCompleted(c10::IValue(result_));
    finish();
  }
  std::vector<at::Tensor> result() override { return result_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

 private:
  Tensors result_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

class MessageWork final : public c10d::Work {
 public:
  MessageWork(int rank, c10d::OpType type, int peer, MessageHandle handle)
      : Work(rank, type), peer_(peer), handle_(std::move(handle)) {}
  bool isCompleted() override { return handle_.done(); }
  bool isSuccess() const override { return handle_.done(); }
  bool wait(std::chrono::milliseconds) override {
    handle_.wait();
    return true;
  }
  int sourceRank() const override { return peer_; }
  void synchronize() override { handle_.wait(); }

 private:
  int peer_;
  MessageHandle handle_;
};

ReduceOp reduce_op(const c10d::ReduceOp& op) {
  switch (static_cast<c10d::ReduceOp::RedOpType>(op)) {
    case c10d::ReduceOp::SUM:
    case c10d::ReduceOp::AVG:
      return ReduceOp::sum;
    case c10d::ReduceOp::PRODUCT:
      return ReduceOp::product;
    case c10d::ReduceOp::MIN:
      return ReduceOp::min;
    case c10d::ReduceOp::MAX:
      return ReduceOp::max;
    default:
      throw_internal("c10d: reductions are SUM, AVG, PRODUCT, MIN and MAX, not number {}", static_cast<int>(op));
  }
}

class Backend final : public c10d::Backend {
 public:
  Backend(const Transport& transport, const Group& group)
      : c10d::Backend(group.rank(), group.size()), transport_(transport.with_tags(kC10dTags)), group_(group) {}

  const std::string getBackendName() const override { return "shardpipe"; }
  void setTimeout(std::chrono::milliseconds) override {}  // the world's
  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return calls_; }

  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override {
    group_.broadcast(only(tensors), static_cast<int>(options.rootRank));
    return done(c10d::OpType::BROADCAST, tensors);
  }
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override {
    all_reduce(only(tensors), options.reduceOp);
    return done(c10d::OpType::ALLREDUCE, tensors);
  }
  WorkPtr allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) override {
    for (const at::Tensor& tensor : tensors) {
      all_reduce(tensor, options.reduceOp);
    }
    return done(c10d::OpType::ALLREDUCE_COALESCED, tensors);
  }
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& options) override {
    const at::Tensor& own = only(tensors);
    const at::Tensor sum = group_.rank() == options.rootRank ? own : own.clone();
    all_reduce(sum, options.reduceOp);
    return done(c10d::OpType::REDUCE, tensors);
  }

  WorkPtr allgather(std::vector<Tensors>& outs, Tensors& ins, const c10d::AllgatherOptions&) override {
    group_.all_gather(only(outs), only(ins));
    return done(c10d::OpType::ALLGATHER, outs[0]);
  }
  WorkPtr _allgather_base(at::Tensor& out, at::Tensor& in, const c10d::AllgatherOptions&) override {
    group_.all_gather(out.view({-1}).chunk(getSize()), in);
    return done(c10d::OpType::_ALLGATHER_BASE, {out});
  }
  WorkPtr allgather_into_tensor_coalesced(Tensors& outs, Tensors& ins, const c10d::AllgatherOptions& options) override {
    for (size_t i = 0; i < outs.size(); ++i) {
      _allgather_base(outs[i], ins[i], options);
    }
    return done(c10d::OpType::COALESCED, outs);
  }
  WorkPtr gather(std::vector<Tensors>& outs, Tensors& ins, const c10d::GatherOptions& options) override {
    const at::Tensor& own = only(ins);
    Tensors sent(getSize(), own.new_empty({0}));
    Tensors arrived = sent;
    sent[options.rootRank] = own;
    if (getRank() == options.rootRank) {
      arrived = only(outs);
    }
    group_.all_to_all(arrived, sent);
    return done(c10d::OpType::GATHER, arrived);
  }
  WorkPtr scatter(Tensors& outs, std::vector<Tensors>& ins, const c10d::ScatterOptions& options) override {
    const at::Tensor& own = only(outs);
    Tensors sent(getSize(), own.new_empty({0}));
    Tensors arrived = sent;
    arrived[options.rootRank] = own;
    if (getRank() == options.rootRank) {
      sent = only(ins);
    }
    group_.all_to_all(arrived, sent);
    return done(c10d::OpType::SCATTER, outs);
  }
  WorkPtr reduce_scatter(Tensors& outs, std::vector<Tensors>& ins, const c10d::ReduceScatterOptions& options) override {
    reduce_scatter(only(outs), only(ins), options.reduceOp);
    return done(c10d::OpType::REDUCE_SCATTER, outs);
  }
  WorkPtr _reduce_scatter_base(at::Tensor& out, at::Tensor& in, const c10d::ReduceScatterOptions& options) override {
    reduce_scatter(out, in.view({-1}).chunk(getSize()), options.reduceOp);
    return done(c10d::OpType::_REDUCE_SCATTER_BASE, {out});
  }
  WorkPtr reduce_scatter_tensor_coalesced(
      Tensors& outs, Tensors& ins, const c10d::ReduceScatterOptions& options) override {
    for (size_t i = 0; i < outs.size(); ++i) {
      _reduce_scatter_base(outs[i], ins[i], options);
    }
    return done(c10d::OpType::REDUCE_SCATTER_TENSOR_COALESCED, outs);
  }

  WorkPtr alltoall_base(
      at::Tensor& out,
      at::Tensor& in,
      std::vector<int64_t>& out_sizes,
      std::vector<int64_t>& in_sizes,
      const c10d::AllToAllOptions&) override {
    const auto split = [&](const at::Tensor& tensor, const std::vector<int64_t>& sizes) {
      return sizes.empty() ? tensor.chunk(getSize()) : tensor.split_with_sizes(sizes);
    };
    group_.all_to_all(split(out, out_sizes), split(in, in_sizes));
    return done(c10d::OpType::ALLTOALL_BASE, {out});
  }
  WorkPtr alltoall(Tensors& outs, Tensors& ins, const c10d::AllToAllOptions&) override {
    group_.all_to_all(outs, ins);
    return done(c10d::OpType::ALLTOALL, outs);
  }

  WorkPtr send(Tensors& tensors, int peer, int tag) override {
    return c10::make_intrusive<MessageWork>(
        getRank(), c10d::OpType::SEND, peer, transport_.isend(only(tensors), peer, tag));
  }
  WorkPtr recv(Tensors& tensors, int peer, int tag) override {
    return c10::make_intrusive<MessageWork>(
        getRank(), c10d::OpType::RECV, peer, transport_.irecv(only(tensors), peer, tag));
  }
  WorkPtr barrier(const c10d::BarrierOptions&) override {
    group_.barrier();
    return done(c10d::OpType::BARRIER, {});
  }

 private:
  template <typename T>
  static T& only(std::vector<T>& list) {
    if (list.size() != 1) {
      throw_internal("c10d: a call with {} tensors of one device, must be 1", list.size());
    }
    return list[0];
  }
  void all_reduce(const at::Tensor& tensor, const c10d::ReduceOp& op) {
    group_.all_reduce(tensor, reduce_op(op));
    average(tensor, op);
  }
  void reduce_scatter(const at::Tensor& out, const Tensors& ins, const c10d::ReduceOp& op) {
    group_.reduce_scatter(out, ins, reduce_op(op));
    average(out, op);
  }
  void average(const at::Tensor& sum, const c10d::ReduceOp& op) const {
    if (op == c10d::ReduceOp::AVG) {
      const at::NoGradGuard no_grad;
      sum.div_(getSize());
    }
  }
  WorkPtr done(c10d::OpType type, Tensors result) {
    ++calls_;
    return c10::make_intrusive<DoneWork>(getRank(), type, std::move(result));
  }

  Transport transport_;
  Group group_;
  uint64_t calls_ = 0;
};

}  // namespace

c10::intrusive_ptr<c10d::Backend> make_c10d_backend(const Transport& transport, const Group& group) {
  return c10::make_intrusive<Backend>(transport, group);
}

c10::intrusive_ptr<c10d::ProcessGroup> make_process_group(
    const Transport& transport, const Group& group, const std::string& name) {
  auto processes = c10::make_intrusive<c10d::ProcessGroup>(group.rank(), group.size());
  processes->setBackend(
      c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::CUSTOM, make_c10d_backend(transport, group));
  processes->setDefaultBackend(c10d::ProcessGroup::BackendType::CUSTOM);
  processes->setGroupName(name);
  c10d::register_process_group(name, processes);
  return processes;
}

}  // namespace shardpipe::comm
