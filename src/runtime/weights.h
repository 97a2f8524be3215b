#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/folder.h"
#include "plan/plan.h"

namespace shardpipe::runtime {

/// A weight that no file holds, by name.
using TensorSource = std::function<at::Tensor(const std::string& name)>;

/// What Weights gives a rank along the pipeline: the parameters, buffers and shared states of its stages, each once.
std::vector<graph::ValueId> held_tensors(const plan::Plan& plan, int rank);

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

  /// Whether load() makes a copy in another dtype than the checkpoint has.
  bool converts(const graph::Value& value) const;
  /// Takes what load() touched of the checkpoint out of this process's page tables.
  void release(const graph::Value& value) const;
  /// Files of the checkpoints that were opened.
  std::vector<std::filesystem::path> opened_files() const;

  /// Bytes of the checkpoints' mappings that this process has touched.
  int64_t resident_bytes() const;

 private:
  const checkpoint::Checkpoint& checkpoint_of(const plan::WeightSource& source) const;

  const plan::Plan& plan_;
  TensorSource tensors_;
  std::vector<std::shared_ptr<const checkpoint::Checkpoint>> checkpoints_;
};

}  // namespace shardpipe::runtime
