#pragma once

#include <string>
#include <vector>

#include "runtime/batch_run.h"

namespace shardpipe::runtime {

/// Tag of the messages of verify_batch.
constexpr int kStageTag = 5;

/// What a stage computed, against what the uncut program computes for the same microbatches.
struct StageCheck {
  int stage = 0;
  int values = 0;      ///< compared: what other stages get and what the caller gets, of all microbatches
  int differing = 0;   ///< of them
  double largest = 0;  ///< difference of two elements; infinite where shapes, types or what is no number differ
  std::string worst;   ///< where that is: the value, its module and the microbatch
};

/// Runs a batch as run_batch does, and then on rank 0, alone, the whole program of the plan without cuts: one executor,
/// microbatch after microbatch. By stage, on rank 0; nothing elsewhere. Pipeline stages only move data, so that no
/// difference is right, whatever its size (docs/design.md, numbers). `load`: the tensors of the reference; those of the
/// plan where it is empty. Collective. Throws as run_batch.
std::vector<StageCheck> verify_batch(
    Engine& engine,
    const NamedTensors& inputs,
    const RunOptions& options,
    const InputCheck& check = {},
    const std::function<at::Tensor(const graph::Value& value)>& load = {});

}  // namespace shardpipe::runtime
