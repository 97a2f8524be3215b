#include "frontend/pt2/tidy.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "graph/alias.h"

namespace shardpipe::pt2 {
namespace {

using graph::Argument;
using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

void replace(Argument& argument, ValueId from, ValueId to) {
  if (graph::ArgumentList* list = argument.as_list()) {
    for (Argument& item : *list) {
      replace(item, from, to);
    }
  } else if (const ValueId* id = argument.as_value(); id != nullptr && *id == from) {
    argument = Argument::value(to);
  }
}

void copy_input(Graph& graph, ValueId input, Node node) {
  Value value = graph.values[static_cast<size_t>(input)];
  value.kind = ValueKind::result;
  value.name.clear();
  const ValueId copy = graph.add_value(std::move(value));
  for (Node& user : graph.nodes) {
    for (Argument& argument : user.arguments) {
      replace(argument, input, copy);
    }
  }
  for (graph::Output& output : graph.outputs) {
    output.value = output.value == input ? copy : output.value;
  }
  for (graph::Update& update : graph.updates) {
    update.value = update.value == input ? copy : update.value;
  }
  node.op = graph::find_operator("aten::clone");
  node.arguments = {Argument::value(input), Argument(c10::IValue())};
  node.results = {copy};
  graph.nodes.insert(graph.nodes.begin(), std::move(node));
}

bool is_number_node(const Node& node) {
  return node.op ? node.op->operator_name().name.starts_with("aten::sym_") : node.branches.empty();
}

}  // namespace

void make_state(Graph& graph, ValueId tensor, const std::vector<std::string>& frozen) {
  Value& value = graph.values[static_cast<size_t>(tensor)];
  const bool is_frozen = std::binary_search(frozen.begin(), frozen.end(), value.name);
  if (value.kind == ValueKind::parameter && !is_frozen) {
    throw_input("the program writes to the parameter \"{}\", which takes a gradient", value.name);
  }
  if (value.kind != ValueKind::result && value.kind != ValueKind::input) {
    value.kind = ValueKind::state;
    value.state = graph::StateKind::shared;
  }
}

void make_states(Graph& graph, const std::vector<std::string>& frozen, const std::function<Node()>& new_node) {
  std::set<ValueId> inputs;
  const graph::AliasAnalysis aliases = graph::analyse_aliases(graph);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    for (const ValueId root : aliases.writes[n]) {
      if (!graph.nodes[n].branches.empty()) {
        throw_input("a branch of cond in \"{}\" writes to a tensor from outside", graph.nodes[n].module);
      }
      if (graph.values[static_cast<size_t>(root)].kind == ValueKind::input) {
        inputs.insert(root);
      } else {
        make_state(graph, root, frozen);
      }
    }
  }
  for (const ValueId input : inputs) {
    copy_input(graph, input, new_node());
  }
}

void drop_unused_numbers(Graph& graph) {
  std::vector<bool> used(graph.values.size());
  for (const graph::Output& output : graph.outputs) {
    used[static_cast<size_t>(output.value)] = true;
  }
  std::vector<Node> kept;
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    Node& node = graph.nodes[n];
    const bool read = std::any_of(
        node.results.begin(), node.results.end(), [&](ValueId id) { return used[static_cast<size_t>(id)]; });
    if (!read && is_number_node(node)) {
      continue;
    }
    for (const ValueId id : Graph::operands(node)) {
      used[static_cast<size_t>(id)] = true;
    }
    kept.push_back(std::move(node));
  }
  std::reverse(kept.begin(), kept.end());
  graph.nodes = std::move(kept);
}

}  // namespace shardpipe::pt2
