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
  int differing = 0;   ///< of them, by more than their bound
  double largest = 0;  ///< difference of two elements; infinite where shapes, types or what is no number differ
  double bound = 0;    ///< of the value with that difference
  std::string worst;   ///< where that is: the value, its module and the microbatch
};

/// The program that the layout must agree with.
struct Uncut {
  const plan::Plan* plan = nullptr;  ///< of a layout with tp above 1: the undivided program; else not asked
  /// The tensors of the reference; those of the engine's plan where it is empty.
  std::function<at::Tensor(const graph::Value& value)> load = {};
};

/// A tensor whose elements are wrong by about as much as rounding makes the sums wrong that they are used in: by
/// max(eps, sqrt(n) eps' / 2) of themselves, up or down at random, where eps is that of the dtype, eps' that of the
/// dtype that sums are taken in (float32, or float64 for its own) and n the length of the sums (elements / first
/// extent; 1 below two dimensions). What follows for a value is how far orders of summation may move it. A copy; other
/// than floating point as it is.
at::Tensor perturbed(const at::Tensor& tensor, uint64_t seed);

/// Times what perturbed weights move a value by: the most that a divided program may differ by. One draw of the many
/// roundings says their size, not the largest of them.
constexpr double kRoundings = 8;

/// Runs a batch as run_batch does, and then on rank 0, alone, the whole program of the plan without cuts: one executor,
/// microbatch after microbatch. By stage, on rank 0; nothing elsewhere. Stages and replicas only move data, so that no
/// difference is right, whatever its size (docs/design.md, numbers). With tp above 1 sums are taken in pieces: what may
/// differ is kRoundings times what the program itself differs by with perturbed() parameters, which is run as well; of
/// what stages give each other, only what is whole is compared. Collective. Throws as run_batch.
std::vector<StageCheck> verify_batch(
    Engine& engine,
    const NamedTensors& inputs,
    const RunOptions& options,
    const InputCheck& check = {},
    const Uncut& uncut = {});

}  // namespace shardpipe::runtime
