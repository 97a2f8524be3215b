#pragma once

#include <functional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::pt2 {

/// A buffer, or a parameter that takes no gradient (in `frozen`, sorted), becomes a shared state. Throws Error(input)
/// for another parameter.
void make_state(graph::Graph& graph, graph::ValueId tensor, const std::vector<std::string>& frozen);

/// The same for every tensor that some node writes. An input that is written is copied first, by a node that `new_node`
/// gives, so that the caller's tensor stays as it is. Throws Error(input) naming the node for other writes.
void make_states(
    graph::Graph& graph, const std::vector<std::string>& frozen, const std::function<graph::Node()>& new_node);

/// Drops arithmetic on sizes whose result nobody reads, such as what only an assertion looked at.
void drop_unused_numbers(graph::Graph& graph);

}  // namespace shardpipe::pt2
