#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comm/reduce.h"

namespace shardpipe::comm {

/// out = parts[0] op parts[1] op ..., as reduce() does it, on the tensors' device: contiguous ones of one type and
/// size. `out` may be one of `parts`. Throws Error(internal) for types that have no such operation.
void reduce_tensors(const at::Tensor& out, const std::vector<at::Tensor>& parts, ReduceOp op);

/// The same by ATen's operators, for tensors that are not on the CPU: equal bits but in the forms of NaN.
void reduce_by_operators(const at::Tensor& out, const std::vector<at::Tensor>& parts, ReduceOp op);

}  // namespace shardpipe::comm
