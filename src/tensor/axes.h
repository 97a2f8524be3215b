#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::tensor {

/// The dimension of a value along which an operator can be divided. `blocks`: see Shard; empty: those that the other
/// values of the axis have.
struct Track {
  int dim = 0;
  std::vector<int64_t> blocks;
  bool operator==(const Track&) const = default;
};

/// The shortest sequence of which `blocks` is a repetition.
std::vector<int64_t> shortest_period(const std::vector<int64_t>& blocks);

/// One way to divide an operator's work among parts: each part has pieces of the operands with a track, and whole the
/// others; it gets pieces of the results with a track, and summands of the others.
struct OpAxis {
  std::map<size_t, Track> operands;  ///< by place among Graph::operands(node)
  std::map<size_t, Track> results;   ///< by place among node.results
  bool sums = false;                 ///< has results without a track
  bool whole_results = false;        ///< those are no summands but whole: the operator's local form talks to the parts
  /// Keys and values, and the dimension of their heads, where there are fewer than parts: those of a part's queries are
  /// one head, which several parts have.
  std::map<size_t, int> grouped;
};

/// All ways in which an operator can be divided, from its rule in the table of axes.cpp, by the shapes in the graph. An
/// operator without a rule has none.
std::vector<OpAxis> op_axes(const graph::Graph& graph, const graph::Node& node);

/// Operands that the operator writes into.
std::set<size_t> written_operands(const graph::Node& node);

/// Whether the operator's result is the sum of its results for each summand of a tensor: what it does with tensor
/// operands is linear, and the others are constants.
bool keeps_sums(const graph::Graph& graph, const graph::Node& node);

}  // namespace shardpipe::tensor
