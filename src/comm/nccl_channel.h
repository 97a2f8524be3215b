#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/device_channel.h"
#include "comm/device_stream.h"
#include "comm/nccl_communicator.h"

namespace shardpipe::comm {

struct NcclSeat;

/// Throws what a failure of NCCL's means: `peer` is gone (number in the world, -1 for any of the seat's), or
/// Error(rank) with NCCL's words, unless some rank's failure explains it.
[[noreturn]] void throw_nccl(const NcclSeat& seat, int peer, const char* what, const NcclFailure& failure);

/// Messages between devices over one communicator, with a stream of its own, for each direction of each pair of ranks.
class NcclChannel final : public DeviceChannel {
 public:
  explicit NcclChannel(const NcclSeat& seat);
  ~NcclChannel() override;

  /// Connects with one rank, which does the same; ids of the directions lower to higher rank, and back.
  void connect(const NcclApi& api, int peer, const NcclId& up, const NcclId& down);

  std::unique_ptr<DeviceTransfer> send(const at::Tensor& tensor, int dst) override;
  std::unique_ptr<DeviceTransfer> recv(const at::Tensor& out, int src) override;

  /// Returns when all that was begun is done. Throws Error(rank).
  void flush();

 private:
  struct Link;
  class Transfer;
  struct Links {
    std::shared_ptr<Link> out;
    std::shared_ptr<Link> in;
  };
  const Links& links(int peer) const;

  std::shared_ptr<const NcclSeat> seat_;
  std::map<int, Links> links_;
};

}  // namespace shardpipe::comm
