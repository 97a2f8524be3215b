#include "runtime/axis_group.h"

namespace shardpipe::runtime {

void RankGroup::all_reduce(at::Tensor& tensor) {
  monitor_.begin_wait("all_reduce over tp", awaited());
  group_.all_reduce(tensor);
  monitor_.end_wait();
}

void RankGroup::all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) {
  monitor_.begin_wait("all_gather over tp", awaited());
  group_.all_gather(pieces, mine);
  monitor_.end_wait();
}

tensor::AxisTime RankGroup::time() const {
  const comm::GroupStatistics statistics = group_.statistics();
  return {
      statistics.all_reduce.ns + statistics.all_gather.ns, statistics.wait_ns,
      statistics.all_reduce.bytes + statistics.all_gather.bytes};
}

void LonePart::all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) {
  for (int part = 0; part < parts_; ++part) {
    at::Tensor& piece = pieces[static_cast<size_t>(part)];
    if (part == part_) {
      piece.copy_(mine);
    } else {
      piece.zero_();
    }
  }
}

}  // namespace shardpipe::runtime
