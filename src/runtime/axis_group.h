#pragma once

#include <vector>

#include "comm/group.h"
#include "comm/monitor.h"
#include "tensor/collectives.h"

namespace shardpipe::runtime {

/// The ranks of a group as parts of the axis tp. The monitor is told of each call and of the rank that it waits for.
class RankGroup : public tensor::AxisGroup {
 public:
  RankGroup(comm::Group group, comm::Monitor& monitor) : group_(std::move(group)), monitor_(monitor) {}
  int parts() const override { return group_.size(); }
  int part() const override { return group_.rank(); }
  void all_reduce(at::Tensor& tensor) override;
  void all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) override;
  tensor::AxisTime time() const override;

 private:
  /// The next part: of two the other one. Transports that know better say it themselves.
  int awaited() const { return group_.ranks()[static_cast<size_t>((part() + 1) % parts())]; }

  comm::Group group_;
  comm::Monitor& monitor_;
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

}  // namespace shardpipe::runtime
