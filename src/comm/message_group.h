#pragma once

#include "comm/group.h"
#include "comm/transport.h"

namespace shardpipe::comm {

/// Collectives made of messages: over Gloo, whose own ones neither sum in the order of the ranks nor can be interrupted
/// when a rank fails. `transport` serves nothing else. Sums: everyone sends slice r to rank r, which adds them up in
/// the order of the ranks and sends the result to all; small tensors are sent whole to everyone.
class MessageGroup final : public GroupBackend {
 public:
  MessageGroup(Transport transport, std::string name) : transport_(std::move(transport)), name_(std::move(name)) {}

  std::string name() const override { return name_; }
  void all_reduce(const at::Tensor& tensor, ReduceOp op) override;
  void all_gather(const std::vector<at::Tensor>& outs, const at::Tensor& in) override;
  void reduce_scatter(const at::Tensor& out, const std::vector<at::Tensor>& ins, ReduceOp op) override;
  void all_to_all(const std::vector<at::Tensor>& outs, const std::vector<at::Tensor>& ins) override;
  void broadcast(const at::Tensor& tensor, int root) override;
  void barrier() override;
  int64_t wait_ns() const override;

 private:
  Transport transport_;
  std::string name_;
};

}  // namespace shardpipe::comm
