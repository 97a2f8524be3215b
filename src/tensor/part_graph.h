#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "tensor/axes.h"
#include "tensor/placement.h"
#include "tensor/shard.h"

namespace shardpipe::tensor {

/// The axis that collective operators name.
inline constexpr const char* kAxis = "tp";

/// Seconds of moving a byte between parts of one host, and of a collective before its first byte.
inline constexpr double kByteMoved = 2e-10;
inline constexpr double kCollective = 2e-6;

/// How a value of the whole graph lies in a part's graph.
struct Lay {
  enum class Kind {
    whole,
    piece,  ///< of `shard`
    sum,    ///< the sum over all parts' values, plus `addend`, which is whole, is the value
  };
  Kind kind = Kind::whole;
  graph::ValueId id = graph::kNoValue;  ///< in the part's graph
  Shard shard;
  graph::ValueId addend = graph::kNoValue;

  bool is_piece(const Shard& of) const { return kind == Kind::piece && shard == of; }
};

/// A part's graph while it is made, node by node, from the whole one: knows how each value lies and puts collectives
/// where another form of it is asked for, once for each form.
class PartGraph {
 public:
  PartGraph(
      const graph::Graph& graph,
      const std::map<graph::ValueId, Shard>& shards,
      int part,
      bool gradients,
      Sharded* told);

  const Lay& lay(graph::ValueId id) const { return lays_[static_cast<size_t>(id)]; }
  /// Of the named dimensions where nothing is known: as the cost model has them.
  const graph::Dimensions& dimensions() const { return dimensions_; }
  double bytes(graph::ValueId id) const;
  bool can_lie(graph::ValueId id, const Shard& shard) const;
  bool changes_dtype(const graph::Node& node, graph::ValueId operand) const;

  /// Seconds of the collectives that another form of a value takes.
  double cost_of_whole(graph::ValueId id) const;
  double cost_of_piece(graph::ValueId id, const Shard& shard) const;
  double cost_of_reduction(graph::ValueId id) const;

  /// Seconds of all collectives so far, those of the backward too.
  double seconds() const { return seconds_; }

  /// The node of the whole graph that the next emits are for.
  void begin(const graph::Node& node);
  /// On whole operands.
  void emit_whole(const graph::Node& node);
  /// On summands: the results are summands too.
  void emit_sum(const graph::Node& node);
  /// The sum of two values of which one at least is a sum.
  void emit_added(const graph::Node& node, graph::ValueId a, graph::ValueId b);
  /// A size of a value that is not whole here.
  void emit_size(const graph::Node& node, const Lay& lay, int dim, const graph::Shape& whole);
  /// On pieces. Operands without a shard are whole; results without one are sums.
  void emit_divided(
      const graph::Node& node,
      const std::map<size_t, Shard>& operands,
      const std::map<size_t, Shard>& results,
      const OpAxis& axis);

  /// From here on the value is whole.
  void make_whole(graph::ValueId id);

  /// Makes outputs whole and updates fit their states; the graph.
  graph::Graph finish();

 private:
  friend class LocalForm;

  graph::ValueId new_value(const graph::Value& like);
  graph::ValueId add_node(const std::string& op, std::vector<graph::Argument> arguments, const graph::Value& result);
  graph::ValueId call(const std::string& op, std::vector<graph::Argument> arguments, graph::ValueId like);
  /// An integer computed from another and a constant.
  graph::ValueId scalar(graph::ScalarOperator op, graph::ValueId value, int64_t by);
  void note(const std::string& op, graph::ValueId value, bool backward);
  graph::ValueId whole(graph::ValueId id);
  graph::ValueId piece(graph::ValueId id, const Shard& shard);
  graph::ValueId entered(graph::ValueId id);
  graph::ValueId group_of_heads(graph::ValueId id, int dim, const std::vector<int64_t>& units);
  graph::ValueId reduced(graph::ValueId id);
  void set_piece(graph::ValueId id, const Shard& shard);
  graph::Node with_operands(const graph::Node& node, const std::vector<graph::ValueId>& operands) const;

  const graph::Graph& graph_;
  int part_;
  bool gradients_;
  Sharded* told_;
  graph::Dimensions dimensions_;
  graph::Graph local_;
  std::vector<Lay> lays_;                             // by value of the whole graph
  std::vector<bool> needs_gradient_;                  // likewise
  std::vector<bool> is_weight_;                       // made of parameters alone
  std::map<graph::ValueId, graph::ValueId> wholes_;   // of pieces
  std::map<graph::ValueId, graph::ValueId> entered_;  // of whole values
  std::map<graph::ValueId, std::vector<std::pair<Shard, graph::ValueId>>>
      pieces_;         // of whole values, or others' pieces
  graph::Node place_;  // of new nodes: module, state
  int32_t next_node_ = 0;
  double seconds_ = 0;
};

/// A size of which each part has some: `size / sum(units) * units[part]`, also with named dimensions.
graph::Size local_size(const graph::Size& size, const Shard& shard, int part);

}  // namespace shardpipe::tensor
