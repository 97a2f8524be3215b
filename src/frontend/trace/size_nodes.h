#pragma once

#include <map>
#include <string>
#include <vector>

#include "frontend/trace/trace.h"

namespace shardpipe::trace {

/// Adds the nodes that compute sizes to a graph that is being built: sym_size of an input or state for a dimension,
/// integer arithmetic for the rest. Each size is computed once, before its first use.
class SizeNodes {
 public:
  SizeNodes(const Program& program, graph::Graph& graph, int32_t& next_node_id)
      : program_(program), graph_(graph), next_node_id_(next_node_id) {}

  /// The value of a size that is not constant. Throws Error(usage) when a dimension of it is not itself an extent of an
  /// input or state.
  graph::ValueId value(const graph::Size& size);

 private:
  graph::ValueId dimension(const std::string& name);
  graph::Argument sum_of_products(const graph::Size& size);
  graph::Argument scalar(graph::ScalarOperator op, const graph::Argument& a, const graph::Argument& b);
  graph::ValueId emit(graph::Node node);

  const Program& program_;
  graph::Graph& graph_;
  int32_t& next_node_id_;
  std::map<std::string, graph::ValueId> values_;
};

}  // namespace shardpipe::trace
