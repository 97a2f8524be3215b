#include "frontend/trace/module_paths.h"

#include <algorithm>
#include <set>

namespace shardpipe::trace {
namespace {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;
using Path = std::optional<std::string>;  // "" is the root

bool inside(const std::string& path, const std::string& module) {
  return module.empty() || path == module ||
         (path.size() > module.size() && path.starts_with(module) && path[module.size()] == '.');
}

std::string parent(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? std::string() : path.substr(0, dot);
}

std::string common_ancestor(std::string a, const std::string& b) {
  while (!inside(b, a)) {
    a = parent(a);
  }
  return a;
}

Path common_ancestor(const Path& a, const Path& b) {
  return a && b ? common_ancestor(*a, *b) : (a ? a : b);
}

class PathFinder {
 public:
  PathFinder(Graph& graph, const std::string& root_class)
      : graph_(graph),
        root_class_(root_class),
        owners_(graph.values.size()),
        producer_(graph.values.size(), kNone),
        consumers_(graph.values.size()),
        is_data_(graph.values.size(), false),
        fixed_(graph.nodes.size()),
        below_(graph.nodes.size()) {
    for (const auto& [path, name] : graph.modules) {
      if (!path.empty()) {
        with_children_.insert(parent(path));
      }
    }
  }

  void run() {
    find_owners();
    find_fixed();
    find_consumers();
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      graph_.nodes[n].module = fixed_[n] ? *fixed_[n] : without_lists(inferred(n));
    }
  }

 private:
  static constexpr size_t kNone = ~size_t{0};

  static size_t index(ValueId id) { return static_cast<size_t>(id); }

  std::string class_of(const std::string& path) const {
    if (path.empty()) {
      return root_class_;
    }
    const auto found = graph_.modules.find(path);
    return found == graph_.modules.end() ? std::string() : found->second;
  }
  bool is_list(const std::string& path) const {
    const std::string name = class_of(path);
    return name == "ModuleList" || name == "ModuleDict";
  }
  std::string without_lists(std::string path) const {
    while (!path.empty() && is_list(path)) {
      path = parent(path);
    }
    return path;
  }
  // A module without children of its own runs nothing but its own operators.
  std::string without_leaf(const std::string& path) const {
    return without_lists(path.empty() || with_children_.count(path) > 0 ? path : parent(path));
  }

  // The modules that a tensor is registered in.
  void find_owners() {
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      const Value& value = graph_.values[id];
      is_data_[id] = value.kind == ValueKind::input ||
                     (value.kind == ValueKind::state && value.state == graph::StateKind::per_sequence);
      if (value.kind == ValueKind::result || is_data_[id]) {
        continue;
      }
      std::vector<std::string> names = {value.name};
      names.insert(names.end(), value.tied_names.begin(), value.tied_names.end());
      for (const std::string& name : names) {
        const std::string owner = parent(name);
        for (std::string path = owner; !path.empty(); path = parent(path)) {
          with_tensors_.insert(path);
        }
        if ((owner.empty() || graph_.modules.count(owner) > 0) &&
            std::find(owners_[id].begin(), owners_[id].end(), owner) == owners_[id].end()) {
          owners_[id].push_back(owner);
        }
      }
    }
  }

  Path owner_for(const Node& node, ValueId id) {
    const std::vector<std::string>& owners = owners_[index(id)];
    if (owners.size() < 2) {
      return owners.empty() ? Path() : Path(owners[0]);
    }
    std::set<std::string>& used = used_[id];
    for (const auto& [op, class_name] :
         {std::pair("aten::embedding", "Embedding"), std::pair("aten::embedding_bag", "EmbeddingBag"),
          std::pair("aten::linear", "Linear")}) {
      const auto fits = [&, fitting = class_name](const std::string& owner) { return class_of(owner) == fitting; };
      if (node.op_name() == op && std::count_if(owners.begin(), owners.end(), fits) == 1) {
        return *used.insert(*std::find_if(owners.begin(), owners.end(), fits)).first;
      }
    }
    const auto unused =
        std::find_if(owners.begin(), owners.end(), [&](const auto& owner) { return !used.contains(owner); });
    return *used.insert(unused == owners.end() ? owners.back() : *unused).first;
  }

  void find_fixed() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      Node& node = graph_.nodes[n];
      Path owner;
      bool data = false;
      for (const ValueId id : Graph::operands(node)) {
        data = data || is_data_[index(id)];
        owner = common_ancestor(owner, owner_for(node, id));
      }
      const bool refines = owner && inside(*owner, node.module);
      if (!node.module.empty() || refines) {
        fixed_[n] = refines ? *owner : node.module;
      } else if (owner) {
        fixed_[n] = owner;
      }
      for (const ValueId result : node.results) {
        producer_[index(result)] = n;
        is_data_[index(result)] = data;
        if (owner && !data) {
          owners_[index(result)] = {*owner};
        }
      }
    }
  }

  void find_consumers() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      for (const ValueId id : Graph::operands(graph_.nodes[n])) {
        auto& consumers = consumers_[index(id)];
        if (consumers.empty() || consumers.back() != n) {
          consumers.push_back(n);
        }
      }
    }
    for (const graph::Output& output : graph_.outputs) {
      if (producer_[index(output.value)] != kNone) {
        below_[producer_[index(output.value)]] = "";
      }
    }
    next_ = below_;
    for (size_t n = graph_.nodes.size(); n-- > 0;) {
      size_t first = kNone;
      for (const ValueId result : graph_.nodes[n].results) {
        for (const size_t consumer : consumers_[index(result)]) {
          below_[n] = common_ancestor(below_[n], fixed_[consumer] ? fixed_[consumer] : below_[consumer]);
          if (consumer < first) {
            first = consumer;
            next_[n] = fixed_[consumer] ? fixed_[consumer] : next_[consumer];
          }
        }
      }
    }
  }

  // Whether the value is a result of the module or an input of it, as seen before node `n`.
  bool known_inside(ValueId id, const std::string& module, size_t n) const {
    const auto is_in = [&](size_t node) { return inside(graph_.nodes[node].module, module); };
    if (producer_[index(id)] != kNone && is_in(producer_[index(id)])) {
      return true;
    }
    const auto& consumers = consumers_[index(id)];
    return std::any_of(consumers.begin(), consumers.end(), [&](size_t node) { return node < n && is_in(node); });
  }

  std::string inferred(size_t n) const {
    std::vector<ValueId> data;
    ValueId latest = graph::kNoValue;
    for (const ValueId id : Graph::operands(graph_.nodes[n])) {
      if (!is_data_[index(id)] || std::find(data.begin(), data.end(), id) != data.end()) {
        continue;
      }
      data.push_back(id);
      const size_t producer = producer_[index(id)];
      if (producer != kNone && (latest == graph::kNoValue || producer > producer_[index(latest)])) {
        latest = id;
      }
    }
    if (latest == graph::kNoValue) {
      return below_[n].value_or("");
    }
    const std::string& above = graph_.nodes[producer_[index(latest)]].module;
    if (data.size() > 1) {
      return combining(n, data, above);
    }
    if (!below_[n]) {
      return without_leaf(above);
    }
    return between(n, latest, above);
  }

  std::string combining(size_t n, const std::vector<ValueId>& data, const std::string& above) const {
    std::string module = above;
    while (!module.empty() &&
           !std::all_of(data.begin(), data.end(), [&](ValueId id) { return known_inside(id, module, n); })) {
      module = parent(module);
    }
    // At the begin of a module: what follows is deeper.
    const std::string below = below_[n] ? without_leaf(*below_[n]) : module;
    return inside(below, module) ? below : module;
  }

  std::string between(size_t n, ValueId operand, const std::string& above) const {
    const std::string& next = next_[n] ? *next_[n] : *below_[n];
    const std::string common = common_ancestor(above, next);
    const bool alone = consumers_[index(operand)].size() == 1;
    if (const Path sibling = next_in_sequence(above, common); sibling && !inside(next, *sibling)) {
      return *sibling;
    }
    const std::string end_of = without_leaf(above);
    if (is_list(common)) {
      return alone ? end_of : without_leaf(next);
    }
    // relu(x + y) at the end of a layer.
    const Value& before = graph_.values[index(operand)];
    const Value& after = graph_.values[index(graph_.nodes[n].results.at(0))];
    if (alone && before.shape && before.shape == after.shape && leaves_layer(above, common)) {
      return end_of;
    }
    const std::string begin_of = without_leaf(*below_[n]);
    return !alone && inside(begin_of, common) ? begin_of : common;
  }

  // ReLU after Linear in a Sequential: the next module where that has no tensors.
  Path next_in_sequence(const std::string& path, const std::string& common) const {
    for (std::string at = path; at != common; at = parent(at)) {
      if (class_of(parent(at)) != "Sequential") {
        continue;
      }
      const std::string number = at.substr(at.rfind('.') + 1);
      if (number.size() > 8 || number.find_first_not_of("0123456789") != std::string::npos) {
        continue;
      }
      const std::string name = std::to_string(std::stoi(number) + 1);
      const std::string sibling = parent(at).empty() ? name : parent(at) + "." + name;
      return graph_.modules.count(sibling) > 0 && with_tensors_.count(sibling) == 0 ? Path(sibling) : Path();
    }
    return std::nullopt;
  }

  // Whether one of a list of modules lies around `path` and not around `common`.
  bool leaves_layer(std::string path, const std::string& common) const {
    for (; path != common; path = parent(path)) {
      if (is_list(parent(path)) || class_of(parent(path)) == "Sequential") {
        return true;
      }
    }
    return false;
  }

  Graph& graph_;
  const std::string& root_class_;
  std::vector<std::vector<std::string>> owners_;  // by value
  std::vector<size_t> producer_;                  // by value: node
  std::vector<std::vector<size_t>> consumers_;    // by value: nodes, in order
  std::vector<bool> is_data_;                     // by value: depends on an input
  std::vector<Path> fixed_;                       // by node: from a scope or from parameters
  std::vector<Path> next_;                        // by node: of the first of what consumes it
  std::vector<Path> below_;                       // by node: common ancestor of what consumes it
  std::set<std::string> with_children_;
  std::set<std::string> with_tensors_;             // of their own or of a module inside
  std::map<ValueId, std::set<std::string>> used_;  // of the owners of a shared tensor
};

}  // namespace

void infer_module_paths(Graph& graph, const std::string& root_class) {
  PathFinder(graph, root_class).run();
}

}  // namespace shardpipe::trace
