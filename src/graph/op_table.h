#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "graph/graph.h"

namespace shardpipe::graph {

/// What Shardpipe knows of one operator. An operator without a row still runs; its cost then follows from its shapes.
struct OpRow {
  const char* name;  ///< without overload: "aten::linear"
  /// Floating-point operations of one call, a multiply-add counted as two.
  int64_t (*flops)(const Graph& graph, const Node& node, const Dimensions& dimensions);
};

/// All rows, sorted by name.
std::span<const OpRow> op_table();
/// nullptr when the operator has no row.
const OpRow* find_op(std::string_view name);

/// By the operator's row, else none for a view and one operation per result element; 0 when shapes are unknown.
int64_t node_flops(const Graph& graph, const Node& node, const Dimensions& dimensions);

}  // namespace shardpipe::graph
