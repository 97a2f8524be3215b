#pragma once

#include "comm/group.h"
#include "comm/shm_group.h"

namespace shardpipe::comm {

/// Collectives through shared memory: no messages and no threads.
///
/// A tensor goes piece by piece. Every rank copies what the others need of its piece into a slot of its own, says so,
/// waits until all have, and takes what it needs from the slots of the others; meanwhile its next piece is brought
/// already. Sums of small tensors: everyone adds up everything. Of large ones: each rank adds up its share, in the
/// order of the ranks, and the others copy the result from it.
class ShmCollectives final : public GroupBackend {
 public:
  explicit ShmCollectives(std::shared_ptr<ShmGroup> group) : group_(std::move(group)) {}

  std::string name() const override { return "shm"; }
  void all_reduce(const at::Tensor& tensor, ReduceOp op) override;
  void all_gather(const std::vector<at::Tensor>& outs, const at::Tensor& in) override;
  void reduce_scatter(const at::Tensor& out, const std::vector<at::Tensor>& ins, ReduceOp op) override;
  void all_to_all(const std::vector<at::Tensor>& outs, const std::vector<at::Tensor>& ins) override;
  void broadcast(const at::Tensor& tensor, int root) override;
  void barrier() override;
  int64_t wait_ns() const override { return group_->wait_ns(); }

 private:
  struct Call;
  template <typename Bring, typename Take>
  void pieces(const Call& call, int64_t count, const Bring& bring, const Take& take);
  void reduce_whole(const Call& call, const at::Tensor& tensor, ReduceOp op);
  void reduce_shares(const Call& call, const at::Tensor& tensor, ReduceOp op);
  int64_t largest(int64_t number);

  void bring(const Call& call);
  void await_pieces(const Call& call, uint64_t number);
  void await_results(const Call& call, uint64_t number);
  void compare(const Call& call, uint64_t number);
  char* piece(int r, uint64_t number) const;
  char* result(int r, uint64_t number) const;

  std::shared_ptr<ShmGroup> group_;
  uint64_t brought_ = 0;  ///< pieces that this rank brought since the group began
  uint64_t reduced_ = 0;  ///< shares that it reduced
};

}  // namespace shardpipe::comm
