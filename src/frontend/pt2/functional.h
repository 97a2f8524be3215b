#pragma once

#include "graph/graph.h"

namespace shardpipe::pt2 {

/// Turns in-place operators on intermediate values (`y += x`, relu_) into their out-of-place forms where nobody can
/// tell: no view or other name of the written value is read behind. The values stay the same to the bit, and the graph
/// can be cut between the two: a value that arrives from another stage must not be written.
void make_functional(graph::Graph& graph);

}  // namespace shardpipe::pt2
