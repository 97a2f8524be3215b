#pragma once

#include <vector>

#include "graph/graph.h"
#include "partition/policies.h"

namespace shardpipe::partition {

/// A value that one stage computes and another needs. Skip connections go from producer to consumer directly.
struct Edge {
  graph::ValueId value = graph::kNoValue;
  int from_stage = 0;
  int to_stage = 0;
  bool operator==(const Edge&) const = default;
};

/// A graph cut into stages. Each stage is a graph of its own with the ids of the whole: values that arrive over an edge
/// are inputs named "edge.<id>", values that leave are outputs of that name (edge_name()).
struct Stages {
  std::vector<graph::Graph> graphs;
  std::vector<Edge> edges;  ///< sorted by producer, consumer, value
};

std::string edge_name(graph::ValueId value);

/// Cuts a graph. Cheap functions of the inputs (masks, rotary tables, sizes: nothing that reads a parameter or a state)
/// are computed again in each stage that needs them rather than sent. A parameter used in several stages is in each.
/// Throws Error(usage) when a stage would write a tensor that belongs to another stage.
Stages cut(const graph::Graph& graph, const CutPoints& points);

}  // namespace shardpipe::partition
