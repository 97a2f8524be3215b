#pragma once

#include <string>

#include "runtime/engine.h"
#include "runtime/microbatches.h"

namespace shardpipe::runtime {

/// Tag of the messages of gather_gradients().
constexpr int kGradientTag = 4;

/// The gradients of the last batch's loss on rank 0, by parameter, a tied one under each of its names; nothing on the
/// other ranks. Those of the replicas are added in their order, pieces of tp are joined. `replicas`: how many of them,
/// the first ones, had a part of the batch; all their ranks together. Throws Error(usage) when the loss depends on no
/// parameter.
NamedTensors gather_gradients(const Engine& engine, const std::string& loss, int replicas);

}  // namespace shardpipe::runtime
