#include "graph/without_empty.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "graph/alias.h"

namespace shardpipe::graph {
namespace {

// The extent when the dimensions are 0; nullopt where it depends on others.
std::optional<int64_t> extent(const Size& size, const std::set<std::string>& zero) {
  int64_t constant = 0;
  for (const auto& [symbols, coefficient] : size.terms()) {
    if (symbols.empty()) {
      constant = coefficient;
    } else if (std::none_of(symbols.begin(), symbols.end(), [&](const auto& name) { return zero.count(name) > 0; })) {
      return std::nullopt;
    }
  }
  return constant;
}

std::optional<std::vector<int64_t>> sizes(const Value& value, const std::set<std::string>& zero) {
  std::vector<int64_t> numbers;
  for (const Size& size : *value.shape) {
    const std::optional<int64_t> number = extent(size, zero);
    if (!number) {
      return std::nullopt;
    }
    numbers.push_back(*number);
  }
  return numbers;
}

}  // namespace

bool is_empty(const Value& value, const std::set<std::string>& zero) {
  return value.type == ValueType::tensor && value.shape && value.dtype &&
         std::any_of(
             value.shape->begin(), value.shape->end(), [&](const Size& size) { return extent(size, zero) == 0; });
}

Graph without_empty(const Graph& graph, const std::set<std::string>& zero) {
  const AliasAnalysis aliases = analyse_aliases(graph);
  std::vector<bool> needed(graph.values.size(), false);
  for (const Output& output : graph.outputs) {
    needed[static_cast<size_t>(output.value)] = true;
  }
  for (const Update& update : graph.updates) {
    needed[static_cast<size_t>(update.value)] = true;
  }
  // An empty result can stand in for its node where its sizes are known.
  const auto replaceable = [&](ValueId id) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    return is_empty(value, zero) && sizes(value, zero).has_value();
  };
  Graph left = graph;
  left.nodes.clear();
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const Node& node = graph.nodes[n];
    const auto dropped = [&](ValueId id) { return !needed[static_cast<size_t>(id)] || replaceable(id); };
    if (aliases.writes[n].empty() && std::all_of(node.results.begin(), node.results.end(), dropped)) {
      for (const ValueId id : node.results) {
        if (needed[static_cast<size_t>(id)]) {
          Value& value = left.values[static_cast<size_t>(id)];
          const std::vector<int64_t> known = *sizes(value, zero);
          value.kind = ValueKind::buffer;
          value.name = "empty." + std::to_string(id);
          value.shape = Shape(known.begin(), known.end());
          value.content = at::empty(known, at::TensorOptions(*value.dtype));
        }
      }
      continue;
    }
    left.nodes.push_back(node);
    for (const ValueId id : Graph::operands(node)) {
      needed[static_cast<size_t>(id)] = true;
    }
  }
  std::reverse(left.nodes.begin(), left.nodes.end());
  return left;
}

}  // namespace shardpipe::graph
