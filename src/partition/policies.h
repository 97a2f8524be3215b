#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::partition {

/// Where a graph is cut: the first node (index into Graph::nodes) of every stage but the first, ascending.
using CutPoints = std::vector<size_t>;

/// Layers of each stage: floor(layers / stages), the leftovers to the last stages (19 on 4 -> 4, 5, 5, 5). What stands
/// before the first layer belongs to the first stage, what follows the last layer to the last.
/// Throws Error(usage) when the model has fewer layers than stages, or none at all.
std::vector<int64_t> even_sizes(int64_t layers, int stages);

/// Cuts by even_sizes() over the repeated module class.
CutPoints cut_even(const graph::Graph& graph, int stages);

/// Cuts at modules: "model.layers.3" after it, "<model.layers.4" before it, in the order of the model. Throws
/// Error(usage) when a name is no module of the model (naming the nearest ones), when a stage would be empty, when the
/// cuts are out of order, or when their number is not stages - 1.
CutPoints cut_at(const graph::Graph& graph, const std::vector<std::string>& cuts, int stages);

}  // namespace shardpipe::partition
