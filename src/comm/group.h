#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/monitor.h"
#include "comm/reduce.h"

namespace shardpipe::comm {

/// What a transport implements behind Group: collectives of tensors that are dense, contiguous and on the CPU (of a
/// device backend: on the rank's device). All ranks of the group call the same, in the same order, with the same sizes.
class GroupBackend {
 public:
  virtual ~GroupBackend() = default;
  /// "gloo", "shm", "nccl"
  virtual std::string name() const = 0;
  virtual void all_reduce(const at::Tensor& tensor, ReduceOp op) = 0;
  virtual void all_gather(const std::vector<at::Tensor>& outs, const at::Tensor& in) = 0;
  virtual void reduce_scatter(const at::Tensor& out, const std::vector<at::Tensor>& ins, ReduceOp op) = 0;
  virtual void all_to_all(const std::vector<at::Tensor>& outs, const std::vector<at::Tensor>& ins) = 0;
  virtual void broadcast(const at::Tensor& tensor, int root) = 0;
  virtual void barrier() = 0;
  /// Time that this rank has waited for others within its calls, or for messages where the collectives consist of them.
  virtual int64_t wait_ns() const = 0;
};

/// What this rank's calls of one kind came to. `ns` is spent inside of them, waiting for other ranks included.
struct CollectiveStatistics {
  int64_t calls = 0;
  int64_t bytes = 0;  ///< of the tensors that this rank brought
  int64_t ns = 0;
};
struct GroupStatistics {
  CollectiveStatistics all_reduce;
  CollectiveStatistics all_gather;
  CollectiveStatistics reduce_scatter;
  CollectiveStatistics all_to_all;
  CollectiveStatistics broadcast;
  CollectiveStatistics barrier;
  int64_t wait_ns = 0;  ///< of all of them: waiting for other ranks, and for messages but in shared memory
};

/// Collectives within one group of ranks: a value that refers to the group. A group of one rank (the default) copies
/// and does nothing else.
///
/// Every rank of the group makes the same calls in the same order, from one thread at a time. They return when this
/// rank's part is done: outputs are there, inputs may be changed. Tensors are of any strides and dtype, empty ones too;
/// a tensor may be given as input and output. Those of one call are on one device, the same kind on all ranks; what a
/// device's backend does not take goes through host memory. Nothing is recorded for autograd.
///
/// Sums are taken in the order of the ranks, element by element, on every transport: all ranks get the same bits, and
/// the same bits on all transports (half types: see reduce.h).
///
/// All throw Error(internal) for tensors that do not fit each other on this rank, Error(rank) when a rank has failed or
/// an action takes longer than the timeout.
class Group {
 public:
  Group();
  /// `ranks`: the members' numbers in the world, in the order of the group; `rank`: this one's number in the group.
  Group(
      std::shared_ptr<GroupBackend> backend,
      std::vector<int> ranks,
      int rank,
      std::shared_ptr<Monitor> monitor,
      std::shared_ptr<GroupBackend> device_backend = nullptr);

  int rank() const;
  int size() const;
  /// Numbers in the world.
  const std::vector<int>& ranks() const;
  /// Of tensors on the CPU: "gloo" or "shm"; "self" for one rank.
  std::string transport() const;

  /// Replaces each element by that of all ranks, combined.
  void all_reduce(const at::Tensor& tensor, ReduceOp op = ReduceOp::sum) const;
  /// outs[r] = rank r's `in`. Sizes may differ from rank to rank (empty ones too): outs[r] has as many elements as
  /// that rank brings, in the same order. Views of one tensor along any dimension do.
  void all_gather(const std::vector<at::Tensor>& outs, const at::Tensor& in) const;
  /// out = ins[this rank] of all ranks, combined. Sizes may differ from rank to rank.
  void reduce_scatter(const at::Tensor& out, const std::vector<at::Tensor>& ins, ReduceOp op = ReduceOp::sum) const;
  /// outs[r] = rank r's ins[this rank].
  void all_to_all(const std::vector<at::Tensor>& outs, const std::vector<at::Tensor>& ins) const;
  /// Replaces the elements on every rank by those of `root`.
  void broadcast(const at::Tensor& tensor, int root) const;
  /// Returns when all ranks have called it.
  void barrier() const;

  /// Since the group began, of all values that refer to it.
  GroupStatistics statistics() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace shardpipe::comm
