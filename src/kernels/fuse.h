#pragma once

#include "graph/graph.h"
#include "kernels/choice.h"

namespace shardpipe::kernels {

/// Rewrites a traced graph to Shardpipe's operators: products of one input become one linear_group, act(gate) * up one
/// linear_gated, add + rms_norm one add_rms_norm, and the reference forms of rotary and cached_attention the fast ones.
/// Only nodes that share a parent module are joined, so that a cut between modules never meets a fused node. A new node
/// takes the id of the last node it replaces; ids of values survive.
graph::Graph fuse(const graph::Graph& graph, const KernelChoice& choice, at::ScalarType dtype);

}  // namespace shardpipe::kernels
