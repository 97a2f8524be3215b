#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "graph/graph.h"
#include "tensor/axes.h"

namespace shardpipe::tensor {

/// Dimensions of values that belong together: where one is divided, each operator between them can work on the pieces.
/// The heads of an attention, with the rows of the weights that make queries, keys and values and the columns of the
/// one that takes them up; the inner channels of an MLP; the words of a vocabulary.
struct DimensionClass {
  std::map<graph::ValueId, Track> members;
  /// Units that every member can be cut at: 3 for 9 query heads of 3 key heads.
  int64_t units = 0;
  /// Where query heads are divided without their key heads: how many of these there are. Else 0.
  int64_t groups = 0;
};

/// A graph with the axes of its nodes at hand.
class AxisGraph {
 public:
  explicit AxisGraph(const graph::Graph& graph);

  const graph::Graph& graph() const { return graph_; }
  const std::vector<OpAxis>& axes(size_t node) const { return axes_[node]; }
  /// Index of the node that makes a value; no number where none does.
  std::optional<size_t> producer(graph::ValueId id) const;
  /// (node, place among its operands)
  const std::vector<std::pair<size_t, size_t>>& consumers(graph::ValueId id) const;

  /// The class of a dimension of a value, by going along the axes of nodes. `grouped`: query heads are divided without
  /// their key heads.
  DimensionClass grow(graph::ValueId id, const Track& track, bool grouped) const;

 private:
  bool is_joint(size_t n, const OpAxis& axis) const;

  const graph::Graph& graph_;
  std::vector<std::vector<OpAxis>> axes_;
  std::vector<std::optional<size_t>> producers_;
  std::vector<std::vector<std::pair<size_t, size_t>>> consumers_;
};

/// Whether a value with track `has` fits where an axis wants `wants`.
bool fits(const Track& has, const Track& wants);

/// All classes with parameters in them, those found first at operators that fix how a dimension is cut (attention, a
/// product that is split into several).
std::vector<DimensionClass> find_classes(const AxisGraph& graph);

}  // namespace shardpipe::tensor
