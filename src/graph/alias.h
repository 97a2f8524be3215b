#pragma once

#include <vector>

#include "graph/graph.h"

namespace shardpipe::graph {

/// Which storage each value lives in and which storages each node writes, from the operators' schemas: a result
/// annotated as an alias of an argument (views, in-place results, reshape) shares the argument's root.
struct AliasAnalysis {
  /// Per value: the value that owns its storage.
  std::vector<ValueId> root;
  /// Per node (index into Graph::nodes): roots that it writes; empty for a pure node.
  std::vector<std::vector<ValueId>> writes;
};

/// The graph's nodes have as many arguments and results as their schemas.
AliasAnalysis analyse_aliases(const Graph& graph);

}  // namespace shardpipe::graph
