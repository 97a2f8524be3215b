#pragma once

#include "graph/graph.h"

namespace shardpipe::trace {

/// Gives nodes a module path from the names of the parameters they use, since C++ has no hook on forward(). Needs
/// Graph::modules; paths that a ModuleScope gave are kept, or refined when the parameters' module lies inside.
///
/// - A node that uses tensors of modules (directly or through views and casts of them) belongs to their lowest common
///   ancestor. Of several modules that share a tensor it is the one whose class fits the operator, else the k-th for
///   the k-th use.
/// - A node without, that combines several values, belongs to the lowest module around its latest producer which has
/// the
///   others as inputs or results: the addition of a residual to the layer that it ends, scores to their attention.
/// - After a module of a Sequential, the next one if that has no tensors (ReLU in Linear, ReLU, Linear).
/// - Any other belongs to the lowest common ancestor of its producer and its first consumer. Between two layers of a
///   list it ends the first one if nothing else uses its operand, and begins the second otherwise; an elementwise
///   operator that follows the last layer ends it too.
/// - What depends on no input's content (masks, positions) belongs to the lowest common ancestor of its consumers.
///
/// A list of modules has no forward: no node belongs to it. `root_class`: the class of the whole model.
void infer_module_paths(graph::Graph& graph, const std::string& root_class);

}  // namespace shardpipe::trace
