#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace shardpipe::graph {

/// The gradients of a branch of cond as Python's torch.cond has them: an operand that requires grad has one, zeros
/// where the branch that ran does not use it, as soon as one of the results is differentiated. Values are not touched.
class BranchGradient {
 public:
  /// Replaces the operands that require grad by those to give to the branch.
  explicit BranchGradient(const std::vector<at::Tensor*>& operands);
  /// Replaces what the branch returned by what cond returns. Once, after the branch ran.
  void finish(const std::vector<at::Tensor*>& results) const;

 private:
  at::Tensor witness_;  // one of the operands given to the branch; undefined when none requires grad
};

}  // namespace shardpipe::graph
