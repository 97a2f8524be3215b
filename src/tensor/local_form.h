#pragma once

#include <map>
#include <vector>

#include "tensor/part_graph.h"

namespace shardpipe::tensor {

/// What an operator call looks like on a part's pieces: sizes among its arguments, groups of a convolution, the bias of
/// a product that is summed, a table of which only some rows are there.
class LocalForm {
 public:
  LocalForm(
      PartGraph& part,
      const graph::Node& node,
      const std::map<size_t, Shard>& operands,
      const std::map<size_t, Shard>& results)
      : part_(part), node_(node), operands_(operands), results_(results) {}

  /// Of a call whose results are summed: whether the operand is a bias, which is added after the reduction.
  bool is_added_once(size_t operand) const;

  /// `node`: the call with the part's operands, which are also in `operands`.
  void emit(graph::Node node, const std::vector<graph::ValueId>& operands, bool sums);

 private:
  bool is(const char* name) const { return node_.op->operator_name().name == name; }
  void set_size(graph::Argument& sizes, size_t place, const Shard& shard, int dim);
  void fix_sizes(graph::Node& node);
  void fix_split(graph::Node& node);
  void add_bias(graph::Node& node, size_t argument, const std::vector<graph::ValueId>& operands);

  PartGraph& part_;
  const graph::Node& node_;
  const std::map<size_t, Shard>& operands_;
  const std::map<size_t, Shard>& results_;
};

}  // namespace shardpipe::tensor
