#pragma once

#include <set>
#include <string>

#include "graph/graph.h"

namespace shardpipe::graph {

/// Whether a value is a tensor that has no elements, whatever the other dimensions are, when the named dimensions
/// `zero` are 0. A value without a shape is none.
bool is_empty(const Value& value, const std::set<std::string>& zero);

/// What is left of a graph when the named dimensions `zero` are 0: without the nodes whose results all are empty, and
/// without those whose results nobody needs then. Nodes that write stay. An empty result that is still read becomes a
/// buffer with its content.
Graph without_empty(const Graph& graph, const std::set<std::string>& zero);

}  // namespace shardpipe::graph
