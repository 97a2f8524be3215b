#pragma once

#include "graph/graph.h"

namespace shardpipe::graph {

/// Checks what every pass relies on: ids in range, node ids unique, each value defined once and before its use, named
/// tensors with a name of their own, arguments and results that fit the operator's schema, sizes over declared
/// dimensions, writes only to states, buffers and results (never to parameters). Throws Error(internal) naming `where`
/// (the pass that ran last), the node and the rule.
void verify(const Graph& graph, const std::string& where);

}  // namespace shardpipe::graph
