#pragma once

#include <map>
#include <set>
#include <vector>

#include "graph/graph.h"
#include "tensor/classes.h"
#include "tensor/placement.h"
#include "tensor/shard.h"

namespace shardpipe::tensor {

/// Named tensors (parameters and states) of which each part has a piece.
using TensorShards = std::map<graph::ValueId, Shard>;

/// The graph that one part runs, when the tensors of `shards` are in pieces. Values follow: each node is divided along
/// the axis that moves the fewest bytes, given how its operands lie; collectives stand where something must be whole or
/// summed. Every output is whole. What is decided does not depend on the part, only the constants of the result do.
/// `made_whole`: values that are made whole where they are computed. `told`, where not null, gets the collectives that
/// the graph calls and its whole values. Throws Error(internal) when an operator writes whole what is divided.
graph::Graph rewrite(
    const AxisGraph& graph,
    const TensorShards& shards,
    const std::set<graph::ValueId>& made_whole,
    int part,
    bool gradients,
    Sharded* told);

/// Seconds of the collectives of one step of such a graph, by the rates of part_graph.h.
double rewrite_seconds(
    const AxisGraph& graph, const TensorShards& shards, const std::set<graph::ValueId>& made_whole, bool gradients);

}  // namespace shardpipe::tensor
