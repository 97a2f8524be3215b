#pragma once

#include "graph/graph.h"

namespace shardpipe::trace {

/// Rewrites products with a transposed matrix, which torch::nn::Linear and the attention layers record (t + addmm, or
/// t + matmul + add_), into aten::linear, so that kernels and sharding find them. Results and gradients stay the same
/// bits, since aten::linear makes these calls itself: with a bias it does so for two-dimensional inputs only. For
/// others it would add the bias before the products are summed; there the recorded addition of the bias remains a node.
/// Transposes that nothing else uses are dropped. Node ids stay.
void canonicalise_linear(graph::Graph& graph);

}  // namespace shardpipe::trace
