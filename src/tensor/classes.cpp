#include "tensor/classes.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <set>

namespace shardpipe::tensor {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

AxisGraph::AxisGraph(const Graph& graph)
    : graph_(graph), producers_(graph.values.size()), consumers_(graph.values.size()) {
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    axes_.push_back(op_axes(graph, node));
    for (const ValueId id : node.results) {
      producers_[static_cast<size_t>(id)] = n;
    }
    const std::vector<ValueId> operands = Graph::operands(node);
    for (size_t i = 0; i < operands.size(); ++i) {
      consumers_[static_cast<size_t>(operands[i])].emplace_back(n, i);
    }
  }
}

std::optional<size_t> AxisGraph::producer(ValueId id) const {
  return producers_[static_cast<size_t>(id)];
}

const std::vector<std::pair<size_t, size_t>>& AxisGraph::consumers(ValueId id) const {
  return consumers_[static_cast<size_t>(id)];
}

bool fits(const Track& has, const Track& wants) {
  return has.dim == wants.dim && (wants.blocks.empty() || has.blocks == wants.blocks);
}

namespace {

Track completed(const Track& track, const Track& like) {
  return {track.dim, track.blocks.empty() ? like.blocks : track.blocks};
}

int64_t common_units(const std::map<ValueId, Track>& members) {
  int64_t units = 0;
  for (const auto& [id, track] : members) {
    for (const int64_t block : track.blocks) {
      units = std::gcd(units, block);
    }
  }
  return units;
}

}  // namespace

// Whether an axis divides key heads too, where another divides query heads alone.
bool AxisGraph::is_joint(size_t n, const OpAxis& axis) const {
  return std::any_of(axes_[n].begin(), axes_[n].end(), [&](const OpAxis& other) {
    return !other.grouped.empty() && axis.operands.count(other.grouped.begin()->first) > 0 &&
           axis.operands.at(0).dim == other.operands.at(0).dim;
  });
}

DimensionClass AxisGraph::grow(ValueId id, const Track& track, bool grouped) const {
  DimensionClass found;
  std::deque<ValueId> todo;
  const auto add = [&](ValueId member, const Track& at) {
    if (found.members.emplace(member, at).second) {
      todo.push_back(member);
    }
  };
  const auto follow = [&](size_t n, const OpAxis& axis, const Track& from) {
    if (grouped ? is_joint(n, axis) : !axis.grouped.empty()) {
      return;
    }
    if (!axis.grouped.empty()) {
      const auto& [place, dim] = *axis.grouped.begin();
      const Value& keys = graph_.values[static_cast<size_t>(Graph::operands(graph_.nodes[n])[place])];
      found.groups = (*keys.shape)[static_cast<size_t>(dim)].constant();
    }
    const std::vector<ValueId> operands = Graph::operands(graph_.nodes[n]);
    for (const auto& [place, wanted] : axis.operands) {
      add(operands[place], completed(wanted, from));
    }
    for (const auto& [place, wanted] : axis.results) {
      add(graph_.nodes[n].results[place], completed(wanted, from));
    }
  };
  add(id, track);
  while (!todo.empty()) {
    const ValueId member = todo.front();
    todo.pop_front();
    const Track at = found.members.at(member);
    if (const std::optional<size_t> n = producer(member)) {
      const std::vector<ValueId>& results = graph_.nodes[*n].results;
      for (const OpAxis& axis : axes_[*n]) {
        for (const auto& [place, wanted] : axis.results) {
          if (results[place] == member && fits(at, wanted)) {
            follow(*n, axis, at);
          }
        }
      }
    }
    for (const auto& [n, operand] : consumers(member)) {
      for (const OpAxis& axis : axes_[n]) {
        const auto place = axis.operands.find(operand);
        if (place != axis.operands.end() && fits(at, place->second)) {
          follow(n, axis, at);
        }
      }
    }
  }
  found.units = common_units(found.members);
  return found;
}

namespace {

bool is_parameter(const Graph& graph, ValueId id) {
  return graph.values[static_cast<size_t>(id)].kind == ValueKind::parameter;
}

class Finder {
 public:
  explicit Finder(const AxisGraph& graph) : graph_(graph) {}

  std::vector<DimensionClass> run() {
    const Graph& graph = graph_.graph();
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      for (const OpAxis& axis : graph_.axes(n)) {
        if (fixes_several(axis)) {
          const auto& [place, track] = *axis.operands.begin();
          seed(Graph::operands(graph.nodes[n])[place], track, !axis.grouped.empty());
        }
      }
    }
    for (size_t id = 0; id < graph.values.size(); ++id) {
      const Value& value = graph.values[id];
      if (value.kind != ValueKind::parameter || !value.shape || value.shape->size() < 2) {
        continue;
      }
      for (int dim = 0; dim < 2; ++dim) {
        const graph::Size& size = (*value.shape)[static_cast<size_t>(dim)];
        if (size.is_constant() && size.constant() > 1) {
          seed(static_cast<ValueId>(id), {dim, {size.constant()}}, false);
        }
      }
    }
    return std::move(classes_);
  }

 private:
  // Attention (several operands whose heads go together) and what splits one tensor into several.
  static bool fixes_several(const OpAxis& axis) {
    size_t fixed = 0;
    for (const auto* side : {&axis.operands, &axis.results}) {
      for (const auto& [place, track] : *side) {
        fixed += track.blocks.empty() ? 0 : 1;
      }
    }
    return fixed >= 3 || !axis.grouped.empty();
  }

  void seed(ValueId id, const Track& track, bool grouped) {
    std::set<std::pair<ValueId, int>>& known = grouped ? known_grouped_ : known_;
    if (known.count({id, track.dim}) > 0) {
      return;
    }
    DimensionClass found = graph_.grow(id, track, grouped);
    bool parameters = false;
    for (const auto& [member, at] : found.members) {
      known.insert({member, at.dim});
      parameters = parameters || is_parameter(graph_.graph(), member);
    }
    if (parameters && found.units > 1) {
      classes_.push_back(std::move(found));
    }
  }

  const AxisGraph& graph_;
  std::set<std::pair<ValueId, int>> known_;
  std::set<std::pair<ValueId, int>> known_grouped_;
  std::vector<DimensionClass> classes_;
};

}  // namespace

std::vector<DimensionClass> find_classes(const AxisGraph& graph) {
  return Finder(graph).run();
}

}  // namespace shardpipe::tensor
