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

/// The tensors of a plan's parameters, buffers and shared states: with tp above 1 the pieces of the plan's selected
/// part. Maps the plan's checkpoints; what is not asked for is not touched. Refers to the plan.
class Weights {
 public:
  /// `tensors`: asked for what the plan names no checkpoint for. Throws Error(input) when a checkpoint cannot be
  /// opened.
  explicit Weights(const plan::Plan& plan, TensorSource tensors = {});

  /// In the value's dtype; where the checkpoint has that, and the whole or one range of its rows is asked for, its own
  /// memory. A piece of another kind is a copy; what is not in it is not read, where the checkpoint is in files. Throws
  /// Error(input) when the checkpoint contradicts the plan.
  at::Tensor load(const graph::Value& value) const;

  /// Whether load() makes a copy: in another dtype than the checkpoint has, or of a piece that is no range of rows.
  bool copies(const graph::Value& value) const;
  /// Takes what load() touched of the checkpoint out of this process's page tables.
  void release(const graph::Value& value) const;
  /// Files of the checkpoints that were opened.
  std::vector<std::filesystem::path> opened_files() const;

  /// Bytes of the checkpoints' mappings that this process has touched.
  int64_t resident_bytes() const;

 private:
  at::Tensor piece_of(const graph::Value& value, const at::Tensor& whole) const;
  at::Tensor load_piece(const graph::Value& value, const plan::WeightSource& source, const tensor::Shard& shard) const;
  void check_shape(const graph::Value& value, const plan::WeightSource& source, at::IntArrayRef sizes) const;
  const checkpoint::Checkpoint& checkpoint_of(const plan::WeightSource& source) const;

  const plan::Plan& plan_;
  TensorSource tensors_;
  std::vector<std::shared_ptr<const checkpoint::Checkpoint>> checkpoints_;
};

}  // namespace shardpipe::runtime
