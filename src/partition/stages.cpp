#include "partition/stages.h"

#include <ATen/core/enum_tag.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "graph/alias.h"

namespace shardpipe::partition {
namespace {

using graph::Graph;
using graph::Node;
using graph::ValueId;
using graph::ValueKind;

constexpr int kEverywhere = -1;

size_t index(ValueId id) {
  return static_cast<size_t>(id);
}

class Cutter {
 public:
  Cutter(const Graph& graph, const CutPoints& points)
      : graph_(graph), num_stages_(static_cast<int>(points.size()) + 1), aliases_(graph::analyse_aliases(graph)) {
    home_.assign(graph.values.size(), kEverywhere);
    producer_.assign(graph.values.size(), graph.nodes.size());
    written_.assign(graph.values.size(), false);
    int stage = 0;
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      while (stage < static_cast<int>(points.size()) && n >= points[static_cast<size_t>(stage)]) {
        ++stage;
      }
      const Node& node = graph.nodes[n];
      const int home = is_cheap(node, aliases_.writes[n]) ? kEverywhere : stage;
      for (const ValueId root : aliases_.writes[n]) {
        written_[index(root)] = true;
      }
      stage_of_node_.push_back(home);
      for (const ValueId id : node.results) {
        home_[index(id)] = home;
        producer_[index(id)] = n;
      }
    }
    check_writes();
  }

  Stages cut() {
    Stages stages;
    std::set<std::tuple<int, int, ValueId>> edges;
    std::vector<std::vector<bool>> members;
    for (int stage = 0; stage < num_stages_; ++stage) {
      members.push_back(collect(stage, edges));
    }
    for (const auto& [from, to, value] : edges) {
      stages.edges.push_back({value, from, to});
    }
    for (int stage = 0; stage < num_stages_; ++stage) {
      stages.graphs.push_back(stage_graph(stage, members[static_cast<size_t>(stage)], stages.edges));
    }
    return stages;
  }

 private:
  // Whether a node may be computed in every stage: it depends on inputs and constants only, and always gives the same.
  bool is_cheap(const Node& node, const std::vector<ValueId>& writes) const {
    if (!writes.empty() || !node.branches.empty() || (node.op && node.op->hasTag(at::Tag::nondeterministic_seeded))) {
      return false;
    }
    for (const ValueId id : Graph::operands(node)) {
      const ValueKind kind = graph_.values[index(id)].kind;
      if (kind == ValueKind::parameter || kind == ValueKind::state || written_[index(aliases_.root[index(id)])] ||
          (kind == ValueKind::result && home_[index(id)] != kEverywhere)) {
        return false;
      }
    }
    return true;
  }

  // A stage has a copy of what it receives. So a named tensor that is written must be in one stage; and what a node
  // writes elsewhere must not be read through another copy afterwards.
  void check_writes() const {
    std::map<ValueId, std::vector<std::pair<size_t, ValueId>>> uses;  // by written root: node and operand
    for (size_t m = 0; m < graph_.nodes.size(); ++m) {
      for (const ValueId id : Graph::operands(graph_.nodes[m])) {
        if (written_[index(aliases_.root[index(id)])]) {
          uses[aliases_.root[index(id)]].emplace_back(m, id);
        }
      }
    }
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      for (const ValueId root : aliases_.writes[n]) {
        const int stage = stage_of_node_[n];
        const bool named = graph_.values[index(root)].kind != ValueKind::result;
        std::set<ValueId> copies;  // that the writing stage has
        for (const auto& [m, id] : uses[root]) {
          const int home = home_[index(id)];
          if (stage_of_node_[m] == stage && home != stage) {
            copies.insert(home == kEverywhere ? root : id);
          }
          if (stage_of_node_[m] != stage && (named || (m > n && home != stage))) {
            refuse(n, root);
          }
        }
        if (!named && copies.size() > 1) {
          refuse(n, root);
        }
      }
    }
    for (const graph::Update& update : graph_.updates) {
      for (size_t m = 0; m < graph_.nodes.size(); ++m) {
        const std::vector<ValueId> operands = Graph::operands(graph_.nodes[m]);
        const bool reads = std::any_of(
            operands.begin(), operands.end(), [&](ValueId id) { return aliases_.root[index(id)] == update.state; });
        if (reads && stage_of_node_[m] != update_stage(update)) {
          refuse(m, update.state);
        }
      }
    }
  }

  // Where a state is bound to its new value: where that is computed, or where the state is read.
  int update_stage(const graph::Update& update) const {
    if (home_[index(update.value)] != kEverywhere) {
      return home_[index(update.value)];
    }
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      const std::vector<ValueId> operands = Graph::operands(graph_.nodes[n]);
      if (std::find(operands.begin(), operands.end(), update.state) != operands.end()) {
        return stage_of_node_[n];
      }
    }
    return num_stages_ - 1;
  }

  [[noreturn]] void refuse(size_t n, ValueId root) const {
    const std::string& name = graph_.values[index(root)].name;
    throw Error(
        ErrorCode::usage,
        fmt::format(
            "a cut separates \"{}\" from another stage's use of {}, which it writes", graph_.nodes[n].module,
            name.empty() ? fmt::format("%{}", root) : name),
        "move the cut so that all uses are in one stage");
  }

  // The nodes of a stage with the cheap ones it needs; notes the edges into it.
  std::vector<bool> collect(int stage, std::set<std::tuple<int, int, ValueId>>& edges) const {
    std::vector<bool> member(graph_.nodes.size(), false);
    std::vector<ValueId> wanted;
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (stage_of_node_[n] == stage) {
        member[n] = true;
        const std::vector<ValueId> operands = Graph::operands(graph_.nodes[n]);
        wanted.insert(wanted.end(), operands.begin(), operands.end());
      }
    }
    if (stage == num_stages_ - 1) {
      // An output that every stage could compute is the last stage's.
      for (const graph::Output& output : graph_.outputs) {
        if (home_[index(output.value)] == kEverywhere) {
          wanted.push_back(output.value);
        }
      }
    }
    for (const graph::Update& update : graph_.updates) {
      if (update_stage(update) == stage) {
        wanted.push_back(update.value);
      }
    }
    while (!wanted.empty()) {
      const ValueId id = wanted.back();
      wanted.pop_back();
      const size_t n = producer_[index(id)];
      if (n == graph_.nodes.size() || stage_of_node_[n] == stage) {
        continue;
      }
      if (stage_of_node_[n] != kEverywhere) {
        edges.insert({stage_of_node_[n], stage, id});
      } else if (!member[n]) {
        member[n] = true;
        const std::vector<ValueId> operands = Graph::operands(graph_.nodes[n]);
        wanted.insert(wanted.end(), operands.begin(), operands.end());
      }
    }
    return member;
  }

  Graph stage_graph(int stage, const std::vector<bool>& member, const std::vector<Edge>& edges) const {
    Graph part;
    part.dimensions = graph_.dimensions;
    part.values = graph_.values;
    part.modules = graph_.modules;
    std::vector<bool> used(graph_.values.size(), false);
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (member[n]) {
        part.nodes.push_back(graph_.nodes[n]);
        for (const ValueId id : Graph::operands(graph_.nodes[n])) {
          used[index(id)] = true;
        }
      }
    }
    for (const graph::Output& output : graph_.outputs) {
      const int home = home_[index(output.value)];
      if (home == stage || (home == kEverywhere && stage == num_stages_ - 1)) {
        part.outputs.push_back(output);
        used[index(output.value)] = true;
      }
    }
    for (const graph::Update& update : graph_.updates) {
      if (update_stage(update) == stage) {
        part.updates.push_back(update);
        used[index(update.value)] = true;
      }
    }
    for (const ValueId id : graph_.inputs) {
      if (used[index(id)]) {
        part.inputs.push_back(id);
      }
    }
    std::set<ValueId> sent;
    for (const Edge& edge : edges) {
      if (edge.to_stage == stage) {
        graph::Value& value = part.values[index(edge.value)];
        value.kind = ValueKind::input;
        value.name = edge_name(edge.value);
        part.inputs.push_back(edge.value);
      } else if (edge.from_stage == stage && sent.insert(edge.value).second) {
        part.outputs.push_back({edge_name(edge.value), edge.value});
      }
    }
    return part;
  }

  const Graph& graph_;
  int num_stages_;
  graph::AliasAnalysis aliases_;
  std::vector<int> stage_of_node_;  // kEverywhere for cheap nodes
  std::vector<int> home_;           // by value; kEverywhere for named tensors and cheap results
  std::vector<bool> written_;       // by root: whether a node so far writes it
  std::vector<size_t> producer_;    // by value; nodes.size() for named tensors
};

}  // namespace

std::string edge_name(ValueId value) {
  return "edge." + std::to_string(value);
}

Stages cut(const Graph& graph, const CutPoints& points) {
  return Cutter(graph, points).cut();
}

}  // namespace shardpipe::partition
