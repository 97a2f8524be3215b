#include "plan/explain_layers.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "graph/op_table.h"
#include "partition/layers.h"
#include "plan/footprint.h"

namespace shardpipe::plan {
namespace {

using graph::Graph;
using graph::Node;
using graph::ValueId;

constexpr size_t kMostNames = 3;

// Parameters that nodes from `begin` to `end` use.
std::set<ValueId> parameters_between(const Graph& graph, size_t begin, size_t end) {
  std::set<ValueId> parameters;
  for (size_t n = begin; n < end; ++n) {
    for (const ValueId id : Graph::operands(graph.nodes[n])) {
      if (graph.values[static_cast<size_t>(id)].kind == graph::ValueKind::parameter) {
        parameters.insert(id);
      }
    }
  }
  return parameters;
}

bool uses_parameter(const Graph& graph, const Node& node) {
  const std::vector<ValueId> operands = Graph::operands(node);
  return std::any_of(operands.begin(), operands.end(), [&](ValueId id) {
    return graph.values[static_cast<size_t>(id)].kind == graph::ValueKind::parameter;
  });
}

// The layer that nodes are of; the modules with parameters, or else all, where they are of none.
std::string name_of(const Graph& graph, const partition::Layers& layers, size_t begin, size_t end) {
  std::vector<std::string> with_parameters;
  std::vector<std::string> all;
  const auto add = [](std::vector<std::string>& names, const std::string& name) {
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  };
  for (size_t n = begin; n < end; ++n) {
    const Node& node = graph.nodes[n];
    for (const std::string& path : layers.paths) {
      if (partition::inside(node.module, path)) {
        return path;
      }
    }
    add(all, node.module);
    if (uses_parameter(graph, node)) {
      add(with_parameters, node.module);
    }
  }
  std::vector<std::string>& names = with_parameters.empty() ? all : with_parameters;
  if (names.size() > kMostNames) {
    names.resize(kMostNames);
    names.push_back("…");
  }
  return names.empty() ? "(no module)" : fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::vector<LayerReport> layer_reports(
    const Plan& plan, const std::vector<Step>& steps, const std::vector<StepCosts>& costs) {
  const Graph& graph = plan.graph;
  const partition::Layers layers = partition::find_layers(graph);
  const partition::CutPoints bounds = partition::layer_bounds(graph);
  std::set<size_t> ends(bounds.begin(), bounds.end());
  ends.insert(plan.cuts.begin(), plan.cuts.end());
  ends.insert(graph.nodes.size());
  std::vector<LayerReport> reports;
  size_t begin = 0;
  for (const size_t end : ends) {
    LayerReport report;
    report.name = name_of(graph, layers, begin, end);
    report.stage = static_cast<int>(std::upper_bound(plan.cuts.begin(), plan.cuts.end(), begin) - plan.cuts.begin());
    for (const ValueId id : parameters_between(graph, begin, end)) {
      const graph::Value& value = graph.values[static_cast<size_t>(id)];
      const int64_t bytes = known_bytes(value, {});
      report.parameter_bytes += bytes;
      report.parameters += value.dtype ? bytes / static_cast<int64_t>(c10::elementSize(*value.dtype)) : 0;
    }
    for (size_t i = 0; i < steps.size(); ++i) {
      int64_t flops = 0;
      for (size_t n = begin; n < end; ++n) {
        flops += graph::node_flops(graph, graph.nodes[n], steps[i].sizes);
      }
      report.flops.push_back(flops);
      const auto first = costs[i].nodes.compute.begin();
      report.forward_s.push_back(
          std::accumulate(first + static_cast<ptrdiff_t>(begin), first + static_cast<ptrdiff_t>(end), 0.0));
    }
    reports.push_back(std::move(report));
    begin = end;
  }
  return reports;
}

}  // namespace shardpipe::plan
