#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/folder.h"
#include "plan/plan.h"

namespace shardpipe::runtime {

/// A weight that no file holds, by name.
using TensorSource = std::function<at::Tensor(const std::string& name)>;

/// The tensors of a plan's parameters, buffers and shared states. Maps the plan's checkpoints; what is not asked for is
/// not touched. Refers to the plan.
class Weights {
 public:
  /// `tensors`: asked for what the plan names no checkpoint for. Throws Error(input) when a checkpoint cannot be
  /// opened.
  explicit Weights(const plan::Plan& plan, TensorSource tensors = {});

  /// In the value's dtype; where the checkpoint has that, its own memory. Throws Error(input) when the checkpoint
  /// contradicts the plan.
  at::Tensor load(const graph::Value& value) const;

  /// Bytes of the checkpoints' mappings that this process has touched.
  int64_t resident_bytes() const;

 private:
  const plan::Plan& plan_;
  TensorSource tensors_;
  std::vector<std::shared_ptr<const checkpoint::Checkpoint>> checkpoints_;
};

}  // namespace shardpipe::runtime
