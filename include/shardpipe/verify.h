#pragma once

#include <string>
#include <vector>

#include "shardpipe/engine.h"

namespace shardpipe {

/// One stage of a layout against the uncut program in one process.
struct StageVerification {
  int stage = 0;
  int rank = 0;  ///< along the pipeline
  std::string first_module;
  std::string last_module;  ///< paths of the modules that its first and last operator belong to
  int values = 0;           ///< compared: tensors and numbers for other stages and for the caller, of all microbatches
  int differing = 0;        ///< of them, by more than their bound
  double largest = 0;       ///< difference of two elements; infinite where shapes, types or NaNs differ
  double bound = 0;         ///< most that it may be: 0 without tp, since stages only move data, and must be equal
  std::string worst;        ///< where the largest one is
  bool equal() const { return largest <= bound; }
};

/// What verify() found, on rank 0; empty elsewhere.
struct Verification {
  std::vector<StageVerification> stages;  ///< of a batch
  int chunks = 1;                         ///< microbatches
  size_t prompts = 0;                     ///< of generation
  size_t tokens = 0;                      ///< compared
  double largest_logprob = 0;             ///< difference of the log probability of a token
  double logprob_bound = 0;               ///< most that it may be
  std::string token_difference;           ///< the first token that differs, empty when none does
  bool equal() const;
  /// One line that names the stage (the first that differs: its inputs were equal) or the token; empty when equal.
  std::string summary() const;
};

/// Runs a batch in the engine's layout and the uncut program on rank 0 alone, with the same microbatches, threads and
/// kernels, and compares what every stage computed. Collective; rank 0's arguments count. `reference`: the model whose
/// weights the one process takes; those that the engine's plan names where it is null. The ranks of an artefact find
/// their own part only: give the artefact, or the model that it was compiled from. Throws as Engine::run.
///
/// With tp above 1 sums are taken in another order, and the bound is derived: rank 0 runs the uncut program twice, the
/// second time with every parameter element wrong by about the rounding of the sums that it is used in; a value may
/// differ by 8 times what that moves it by. `reference` is needed then, and may not be an artefact: throws
/// Error(usage).
SHARDPIPE_API Verification
verify(Engine& engine, const NamedTensors& inputs, const RunOptions& options = {}, const Model* reference = nullptr);

/// Generates in the engine's layout and in one process (all stages' layers, the same lanes), and compares tokens and
/// log probabilities. With tp above 1 a token may be another one where the moved weights choose another one, too; what
/// follows in that text is not compared. Collective. Throws as generate().
SHARDPIPE_API Verification verify(
    Engine& engine,
    const std::vector<std::vector<int64_t>>& prompts,
    const GenerateOptions& options,
    const Model* reference = nullptr);

/// Inputs that a plan's program can be tried with: random numbers, `rows` in the batch, other named dimensions small;
/// the same for the same seed. On the rank that planned. Throws Error(usage) where the program refuses what was made:
/// then inputs must be given.
SHARDPIPE_API NamedTensors example_inputs(const Plan& plan, const Model& model, int64_t rows, uint64_t seed = 0);

}  // namespace shardpipe
