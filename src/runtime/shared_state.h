#pragma once

#include <string>

#include "runtime/engine.h"
#include "runtime/microbatches.h"

namespace shardpipe::runtime {

/// The shared states of all ranks by name, in the order of the graph, on the first rank of the pipeline; empty
/// elsewhere. Copies. All ranks together.
NamedTensors gather_state(Engine& engine);

/// What scatter_state checks before anything is sent.
void check_state(const Engine& engine, const NamedTensors& state, const std::string& file);

/// Replaces the states of all ranks by those of the first. Throws there, before anything is sent, naming the tensor
/// when one is missing, unknown, or of another dtype or shape: Error(input) where `file` names where they come from,
/// else Error(usage).
void scatter_state(Engine& engine, const NamedTensors& state, const std::string& file);

}  // namespace shardpipe::runtime
