#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"
#include "partition/policies.h"

namespace shardpipe::partition {

/// What a graph costs, node by node, in the unit of the cuts' costs (seconds where they come from cost_model()).
struct Costs {
  std::vector<double>
      compute;  ///< by node; 0 for cheap functions of the inputs, which every stage that needs them repeats
  std::vector<double> transfer;  ///< by cut point, 0 to nodes: of what crosses it
};

/// What a machine does in a second. The defaults are those of one core of a server: enough to compare stages, too rough
/// to predict a time.
struct Rates {
  double flops_per_second = 5e10;          ///< of a product of many rows
  double bytes_per_second = 1e10;          ///< read and written
  double transfer_bytes_per_second = 1e9;  ///< from rank to rank
  double message_seconds = 1e-4;           ///< of a message before its first byte; no part of cost_model()
  double message_busy_seconds = 0;         ///< that both its ends together take from those that compute; likewise
  double node_seconds = 1e-6;              ///< of calling an operator
};

/// `dimensions`, and 16 for each named dimension of the graph that they lack.
graph::Dimensions with_unknown(const graph::Graph& graph, graph::Dimensions dimensions);

/// From floating-point operations, bytes read and written, and bytes that cross each cut: seconds at the rates given.
/// Dimensions that `dimensions` lacks are those of with_unknown().
Costs cost_model(const graph::Graph& graph, const graph::Dimensions& dimensions = {}, const Rates& rates = {});

/// Among all contiguous cuts, one whose slowest stage (its nodes and the transfers at both its ends) is fastest, while
/// no stage holds more than `memory_bytes` of parameters, buffers and states (0 = no limit) and none is empty. Exact:
/// dynamic programming over the cut points. Throws Error(usage) when there are more stages than nodes, or when the
/// limit cannot be met, saying what could be.
CutPoints cut_balanced(const graph::Graph& graph, int stages, const Costs& costs, int64_t memory_bytes = 0);

/// Bytes of the tensors that the nodes of some stages hold together, each once.
int64_t held_bytes(const graph::Graph& graph, const CutPoints& points, const std::vector<int>& stages);

/// Throws Error(usage) naming the stages, their bytes and what would fit when those of a group, which are held
/// together, hold more than `memory_bytes` (0 = no limit).
void check_memory(
    const graph::Graph& graph,
    const CutPoints& points,
    const std::vector<std::vector<int>>& groups,
    int64_t memory_bytes);

}  // namespace shardpipe::partition
