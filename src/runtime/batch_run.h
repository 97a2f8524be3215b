#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/engine.h"
#include "runtime/microbatches.h"

namespace shardpipe::runtime {

/// Checks the inputs of one microbatch beyond what the graph says: throws Error(usage).
using InputCheck = std::function<void(const std::map<std::string, at::Tensor>&)>;

/// Sees what each forward of this rank's stages computed.
using StageObserver = std::function<void(int stage, int microbatch, const StageValues& values)>;

/// What a batch gave. Empty where it is not asked for, and on the ranks that do not get it.
struct BatchResult {
  NamedTensors outputs;    ///< in the order of the graph's; numbers are tensors without dimensions
  NamedTensors gradients;  ///< of the loss, on rank 0; a tied parameter under each of its names
  int microbatches = 1;    ///< of a replica: the most
  BatchRequest request;    ///< how the batch was cut
  StepStats stats;
};

/// What run_batch checks before anything is sent, on the rank that has the inputs. Throws Error(usage).
BatchRequest check_batch(
    const plan::Plan& plan, const NamedTensors& inputs, const RunOptions& options, const InputCheck& check = {});

/// One forward of a batch through the pipeline, cut into microbatches and joined again, and its backward where the
/// options name a loss. All ranks together; rank 0's inputs and options count.
///
/// The loss and its gradients are those of the uncut batch: microbatches are weighted by the elements that their means
/// are over, counts of all microbatches being known before the first backward. Sums are in microbatch order. Throws
/// Error(usage): see request_batch.
BatchResult run_batch(
    Engine& engine,
    const NamedTensors& inputs,
    const RunOptions& options,
    const InputCheck& check = {},
    const StageObserver& observer = {});

}  // namespace shardpipe::runtime
