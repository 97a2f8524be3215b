#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/monitor.h"
#include "comm/transport.h"
#include "tensor/collectives.h"

namespace shardpipe::runtime {

/// Collectives made of messages. `transport` serves nothing else.
class MessageGroup : public tensor::AxisGroup {
 public:
  explicit MessageGroup(comm::Transport transport) : transport_(std::move(transport)) {}
  int parts() const override { return transport_.size(); }
  int part() const override { return transport_.rank(); }
  void all_reduce(at::Tensor& tensor) override;
  void all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) override;

 private:
  comm::Transport transport_;
};

/// One part alone, to time what it computes: nothing comes from the others. Sums stay what they are, pieces of others
/// are zero.
class LonePart : public tensor::AxisGroup {
 public:
  LonePart(int parts, int part) : parts_(parts), part_(part) {}
  int parts() const override { return parts_; }
  int part() const override { return part_; }
  void all_reduce(at::Tensor& /*tensor*/) override {}
  void all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) override;

 private:
  int parts_;
  int part_;
};

/// What another group does, told to the monitor: who is stuck in a collective says within which action, and with which
/// rank it waits.
class WatchedGroup : public tensor::AxisGroup {
 public:
  /// `ranks`: the parts' numbers in the world.
  WatchedGroup(std::shared_ptr<tensor::AxisGroup> group, std::vector<int> ranks, comm::Monitor& monitor);
  /// The action that calls from now on are part of.
  void set_action(std::string name, const comm::ActionPlace& place);

  int parts() const override { return group_->parts(); }
  int part() const override { return group_->part(); }
  void all_reduce(at::Tensor& tensor) override;
  void all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) override;

 private:
  template <typename F>
  void watched(const char* what, F call);

  std::shared_ptr<tensor::AxisGroup> group_;
  std::vector<int> ranks_;
  comm::Monitor& monitor_;
  std::string name_;
  comm::ActionPlace place_;
};

}  // namespace shardpipe::runtime
