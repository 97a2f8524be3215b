#pragma once

#include <map>
#include <vector>

#include "plan/plan.h"

namespace shardpipe::runtime {

/// A stage's graph in which each use of some values has a value of its own, so that each gets a gradient of its own.
struct SeparatedUses {
  graph::Graph graph;
  /// The values that stand for a separated one, in the order in which autograd adds the gradients of its uses: later
  /// nodes first, within a node the first argument first.
  std::map<graph::ValueId, std::vector<graph::ValueId>> copies;
};

/// Separates the uses of `values` (inputs or parameters of the graph).
SeparatedUses separate_uses(const graph::Graph& part, const std::vector<graph::ValueId>& values);

/// How many gradients a stage returns for a value that it received. One, unless stages after it use the value too and
/// it has several uses here: sums in floating point depend on their order, which must be that of the uncut graph, where
/// the later stages' gradients come first.
size_t gradients_returned(const plan::Plan& plan, const partition::Edge& edge);

/// Parameters of a stage with more than one use in the whole model. Their gradients are added up use by use at the end
/// of a step, so that the sum does not depend on the cuts.
std::vector<graph::ValueId> shared_parameters(const plan::Plan& plan, int stage);

/// The values of a stage that are written in place.
std::vector<graph::ValueId> written_values(const graph::Graph& part);

}  // namespace shardpipe::runtime
