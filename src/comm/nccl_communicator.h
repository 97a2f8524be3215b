#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <span>
#include <stdexcept>
#include <string>

#include "comm/nccl_api.h"

namespace shardpipe::comm {

/// A call of NCCL failed.
struct NcclFailure : std::runtime_error {
  NcclFailure(const std::string& what, bool is_lost) : std::runtime_error(what), lost(is_lost) {}
  bool lost;  ///< the connection is, or the other rank
};

/// One communicator: ranks that are numbered from 0 and call the same in the same order. Its calls throw NcclFailure.
class NcclCommunicator {
 public:
  /// What goes to or comes from one rank: contiguous, of any type.
  struct Piece {
    at::Tensor tensor;
    int peer = 0;
  };

  /// An id that the ranks of one communicator share.
  static NcclId make_id(const NcclApi& api);

  /// Connects; returns when all ranks have come. On the current device. `max_blocks`: of the device's threads that one
  /// transfer takes up, 0 for NCCL's own choice.
  NcclCommunicator(const NcclApi& api, const NcclId& id, int size, int rank, int max_blocks);
  /// Takes it down without the others; what is under way ends.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  /// Enqueues transfers that run at the same time. The memory stays until the stream has passed them.
  void exchange(std::span<const Piece> sends, std::span<const Piece> receives, const c10::Stream& stream);

 private:
  void check(NcclResult result) const;

  const NcclApi& api_;
  NcclComm* comm_ = nullptr;
};

}  // namespace shardpipe::comm
