#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::plan {

/// Bytes of a tensor; 0 where its shape or dtype is not known before the run.
int64_t known_bytes(const graph::Value& value, const graph::Dimensions& dimensions);

/// The most that a forward without gradients of the graph has at one time: its inputs and what its operators compute,
/// each until its last use, views with what they are views of. Weights and states are not counted, nor what an
/// operator needs inside.
int64_t peak_activation_bytes(const graph::Graph& graph, const graph::Dimensions& dimensions);

/// Bytes of the per-sequence states that the graph uses.
int64_t cache_bytes(const graph::Graph& graph, const graph::Dimensions& dimensions);

/// Parameters of graphs, each once.
struct Parameters {
  int64_t count = 0;  ///< elements
  int64_t bytes = 0;
  int64_t weight_bytes = 0;  ///< with buffers and shared states
};
Parameters parameters_of(const std::vector<const graph::Graph*>& graphs);

}  // namespace shardpipe::plan
