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

/// Cuts by even_sizes() over the layers (find_layers); over the top-level modules where the model has no layers, and
/// over the nodes that use parameters where it has too few of those.
CutPoints cut_even(const graph::Graph& graph, int stages);

/// Where each layer (see cut_even) begins and ends, ascending, without 0 and the number of nodes.
CutPoints layer_bounds(const graph::Graph& graph);

/// Walks over the nodes and cuts before one whose tensors would take the stage above `bytes`; one that alone exceeds it
/// gets a stage that ends after it. A tensor costs once a stage, parameters and buffers alike. (PiPPy's
/// split_on_size_threshold, in bytes.) At most `most` stages: what is left belongs to the last one; 0 = any number.
CutPoints cut_threshold(const graph::Graph& graph, int64_t bytes, int most = 0);

/// cut_threshold() with the model's bytes / stages. Throws Error(usage) when that gives fewer stages.
CutPoints cut_equal_size(const graph::Graph& graph, int stages);

/// Cuts at modules: "model.layers.3" after it, "<model.layers.4" before it, in the order of the model. Throws
/// Error(usage) when a name is no module of the model (naming the nearest ones), when a stage would be empty, when the
/// cuts are out of order, or when their number is not stages - 1.
CutPoints cut_at(const graph::Graph& graph, const std::vector<std::string>& cuts, int stages);

}  // namespace shardpipe::partition
