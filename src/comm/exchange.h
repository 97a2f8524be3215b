#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace shardpipe::comm {

/// What the collectives of MessageGroup consist of: rounds in which each rank gives each other one tensor.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Fills outs[r] with what rank r gives as its ins[this rank], bytes as they are. Undefined and empty tensors are not
  /// sent, which both ends know; this rank's own places are left alone. Contiguous tensors; no `out` overlaps an `in`.
  virtual void run(const std::vector<at::Tensor>& outs, const std::vector<at::Tensor>& ins) = 0;
  /// Returns when all ranks have called it.
  virtual void barrier() = 0;
  /// Time that this rank has waited for others.
  virtual int64_t wait_ns() const = 0;
};

}  // namespace shardpipe::comm
