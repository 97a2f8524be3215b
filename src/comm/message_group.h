#pragma once

#include <memory>

#include "comm/exchange.h"
#include "comm/group.h"
#include "comm/transport.h"

namespace shardpipe::comm {

/// Collectives made of messages: over Gloo, whose own ones neither sum in the order of the ranks nor can be interrupted
/// when a rank fails, and over NCCL, whose sums follow its own orders. Sums: everyone sends slice r to rank r, which
/// adds them up in the order of the ranks and sends the result to all; small tensors are sent whole to everyone.
class MessageGroup final : public GroupBackend {
 public:
  MessageGroup(std::unique_ptr<Exchange> exchange, std::string name)
      : exchange_(std::move(exchange)), name_(std::move(name)) {}
  /// `transport` serves nothing else.
  MessageGroup(const Transport& transport, std::string name);

  std::string name() const override { return name_; }
  void all_reduce(const at::Tensor& tensor, ReduceOp op) override;
  void all_gather(const std::vector<at::Tensor>& outs, const at::Tensor& in) override;
  void reduce_scatter(const at::Tensor& out, const std::vector<at::Tensor>& ins, ReduceOp op) override;
  void all_to_all(const std::vector<at::Tensor>& outs, const std::vector<at::Tensor>& ins) override;
  void broadcast(const at::Tensor& tensor, int root) override;
  void barrier() override { exchange_->barrier(); }
  int64_t wait_ns() const override { return exchange_->wait_ns(); }

 private:
  std::unique_ptr<Exchange> exchange_;
  std::string name_;
};

}  // namespace shardpipe::comm
