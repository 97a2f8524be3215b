#include "tensor/rewrite.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "graph/op_table.h"
#include "tensor/op_view.h"
#include "tensor/part_graph.h"

namespace shardpipe::tensor {
namespace {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueType;

// A node divided along one of its axes: how its tracked operands and results lie then.
struct Division {
  const OpAxis* axis = nullptr;  // none: everything is whole
  std::map<size_t, Shard> operands;
  std::map<size_t, Shard> results;
  double cost = 0;
};

bool is_add(const Node& node) {
  return node.op && (node.op->operator_name().name == "aten::add") &&
         node.op->operator_name().overload_name == "Tensor";
}

class Rewriter {
 public:
  Rewriter(
      const AxisGraph& graph,
      const TensorShards& shards,
      const std::set<ValueId>& made_whole,
      int part,
      bool gradients,
      Sharded* told)
      : axes_(graph),
        graph_(graph.graph()),
        made_whole_(made_whole),
        local_(graph.graph(), shards, part, gradients, told) {}

  Graph run() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      rewrite_node(n);
      for (const ValueId id : graph_.nodes[n].results) {
        if (made_whole_.count(id) > 0) {
          local_.make_whole(id);
        }
      }
    }
    return local_.finish();
  }
  double seconds() const { return local_.seconds(); }

 private:
  void rewrite_node(size_t n) {
    const Node& node = graph_.nodes[n];
    const std::vector<ValueId> operands = Graph::operands(node);
    local_.begin(node);
    if (!node.op || read_size(node, operands) || keep_sum(node, operands) || add_sums(node, operands)) {
      if (!node.op) {
        local_.emit_whole(node);
      }
      return;
    }
    apply(node, choose(n, node, operands));
  }

  // Sizes are the whole tensor's.
  bool read_size(const Node& node, const std::vector<ValueId>& operands) {
    if (node.op->operator_name().name != "aten::sym_size" || operands.empty()) {
      return false;
    }
    const Lay& lay = local_.lay(operands[0]);
    const c10::IValue* dim = node.arguments[1].as_constant();
    if (lay.kind == Lay::Kind::whole || dim == nullptr) {
      return false;
    }
    const graph::Shape& shape = *graph_.values[static_cast<size_t>(operands[0])].shape;
    local_.emit_size(node, lay, wrap_dim(dim->toInt(), shape.size()), shape);
    return true;
  }

  // A view of a sum is the sum of the views.
  bool keep_sum(const Node& node, const std::vector<ValueId>& operands) {
    const bool by_number = node.op->operator_name().name == "aten::mul" || node.op->operator_name().name == "aten::div";
    if (operands.empty() || local_.lay(operands[0]).kind != Lay::Kind::sum ||
        local_.lay(operands[0]).addend != graph::kNoValue || !(by_number || keeps_sums(graph_, node)) ||
        node.results.size() != 1 || local_.changes_dtype(node, operands[0])) {
      return false;
    }
    for (size_t i = 1; i < operands.size(); ++i) {
      if (by_number || graph_.values[static_cast<size_t>(operands[i])].type == ValueType::tensor) {
        return false;
      }
    }
    local_.emit_sum(node);
    return true;
  }

  // Sums are added as they are, and what is whole is kept to be added after the reduction, so that several sums are
  // reduced once.
  bool add_sums(const Node& node, const std::vector<ValueId>& operands) {
    if (!is_add(node) || operands.size() != 2 || node.arguments[2].as_constant() == nullptr ||
        !node.arguments[2].as_constant()->isInt() || node.arguments[2].as_constant()->toInt() != 1) {
      return false;
    }
    const Value& result = graph_.values[static_cast<size_t>(node.results[0])];
    int sums = 0;
    bool fits = true;
    for (const ValueId id : operands) {
      const Lay& lay = local_.lay(id);
      const Value& value = graph_.values[static_cast<size_t>(id)];
      if (lay.kind == Lay::Kind::piece || !value.shape || value.dtype != result.dtype) {
        return false;
      }
      if (lay.kind == Lay::Kind::sum) {
        ++sums;
        fits = fits && value.shape == result.shape;
      }
    }
    // One sum stands for the result, which must not be larger.
    if (sums == 0 || operands[0] == operands[1] || (sums == 1 && !fits)) {
      return false;
    }
    local_.emit_added(node, operands[0], operands[1]);
    return true;
  }

  Division choose(size_t n, const Node& node, const std::vector<ValueId>& operands) const {
    const std::set<size_t> written = written_operands(node);
    const double compute = static_cast<double>(graph::node_flops(graph_, node, local_.dimensions()));
    std::optional<Division> best = whole(operands, written, compute);
    for (const OpAxis& axis : axes_.axes(n)) {
      std::optional<Division> division = divide(node, axis, operands, written, compute);
      if (division && (!best || division->cost < best->cost)) {
        best = std::move(division);
      }
    }
    if (!best) {
      throw_internal("{} of {} writes into a tensor that is divided", node.op_name(), node.module);
    }
    return *best;
  }

  std::optional<Division> whole(
      const std::vector<ValueId>& operands, const std::set<size_t>& written, double compute) const {
    Division division;
    division.cost = compute * kFlop;
    for (size_t i = 0; i < operands.size(); ++i) {
      if (written.count(i) > 0 && local_.lay(operands[i]).kind == Lay::Kind::piece) {
        return std::nullopt;
      }
      division.cost += local_.cost_of_whole(operands[i]);
    }
    return division;
  }

  std::optional<Division> divide(
      const Node& node,
      const OpAxis& axis,
      const std::vector<ValueId>& operands,
      const std::set<size_t>& written,
      double compute) const {
    // How a piece that is there lies says how the others shall.
    const Shard* given = nullptr;
    double most = -1;
    for (const auto& [place, track] : axis.operands) {
      const Lay& lay = local_.lay(operands[place]);
      const double bytes = local_.bytes(operands[place]);
      if (lay.kind == Lay::Kind::piece && fits({lay.shard.dim, lay.shard.blocks}, track) && bytes > most) {
        given = &lay.shard;
        most = bytes;
      }
    }
    if (given == nullptr) {
      return std::nullopt;
    }
    for (const auto& [place, dim] : axis.grouped) {
      const graph::Shape& shape = *graph_.values[static_cast<size_t>(operands[place])].shape;
      const int64_t groups = shape[static_cast<size_t>(dim)].constant();
      if (given->units != spread_groups(given->all_units(), groups, given->parts())) {
        return std::nullopt;
      }
    }
    Division division;
    division.axis = &axis;
    const auto place_all = [&](const std::map<size_t, Track>& tracks, std::map<size_t, Shard>& shards) {
      for (const auto& [place, track] : tracks) {
        shards[place] = {track.dim, track.blocks.empty() ? given->blocks : track.blocks, given->units};
      }
    };
    place_all(axis.operands, division.operands);
    place_all(axis.results, division.results);
    division.cost = compute * kFlop / given->parts();
    for (const auto* shards : {&division.operands, &division.results}) {
      for (const auto& [place, shard] : *shards) {
        const ValueId id = shards == &division.operands ? operands[place] : node.results[place];
        if (!local_.can_lie(id, shard)) {
          return std::nullopt;
        }
      }
    }
    for (size_t i = 0; i < operands.size(); ++i) {
      const auto at = division.operands.find(i);
      const Lay& lay = local_.lay(operands[i]);
      if (axis.grouped.count(i) > 0) {
        continue;
      }
      const bool moves = at != division.operands.end() ? !lay.is_piece(at->second) : lay.kind != Lay::Kind::whole;
      if (moves && written.count(i) > 0) {
        return std::nullopt;
      }
      division.cost += at != division.operands.end() ? local_.cost_of_piece(operands[i], at->second)
                                                     : local_.cost_of_whole(operands[i]);
    }
    for (size_t r = 0; r < node.results.size(); ++r) {
      if (division.results.count(r) == 0) {
        division.cost += local_.cost_of_reduction(node.results[r]);
      }
    }
    return division;
  }

  void apply(const Node& node, const Division& division) {
    if (division.axis == nullptr) {
      local_.emit_whole(node);
      return;
    }
    local_.emit_divided(node, division.operands, division.results, *division.axis);
  }

  static constexpr double kFlop = 2e-11;  // seconds, as partition::Rates

  const AxisGraph& axes_;
  const Graph& graph_;
  const std::set<ValueId>& made_whole_;
  PartGraph local_;
};

}  // namespace

Graph rewrite(
    const AxisGraph& graph,
    const TensorShards& shards,
    const std::set<ValueId>& made_whole,
    int part,
    bool gradients,
    Sharded* told) {
  return Rewriter(graph, shards, made_whole, part, gradients, told).run();
}

double rewrite_seconds(
    const AxisGraph& graph, const TensorShards& shards, const std::set<ValueId>& made_whole, bool gradients) {
  Rewriter rewriter(graph, shards, made_whole, 0, gradients, nullptr);
  rewriter.run();
  return rewriter.seconds();
}

}  // namespace shardpipe::tensor
