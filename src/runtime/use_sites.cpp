#include "runtime/use_sites.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "graph/alias.h"

namespace shardpipe::runtime {
namespace {

using graph::Argument;
using graph::Graph;
using graph::ValueId;

// Replaces each use of a separated value by a new one.
class Separator {
 public:
  Separator(const Graph& part, const std::vector<ValueId>& values)
      : separate_(values.begin(), values.end()), result_{part, {}} {}

  SeparatedUses run() {
    Graph& graph = result_.graph;
    for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
      for (Argument& argument : node->arguments) {
        replace(argument);
      }
    }
    std::vector<ValueId> inputs;
    for (const ValueId id : graph.inputs) {
      const auto copies = result_.copies.find(id);
      if (copies == result_.copies.end()) {
        inputs.push_back(id);
      } else {
        inputs.insert(inputs.end(), copies->second.begin(), copies->second.end());
      }
    }
    graph.inputs = std::move(inputs);
    return std::move(result_);
  }

 private:
  void replace(Argument& argument) {
    if (const ValueId* id = argument.as_value()) {
      if (separate_.count(*id) > 0) {
        std::vector<ValueId>& copies = result_.copies[*id];
        graph::Value copy = result_.graph.values[static_cast<size_t>(*id)];
        copy.name = fmt::format("{}#{}", copy.name, copies.size());
        copy.tied_names.clear();
        copies.push_back(result_.graph.add_value(std::move(copy)));
        argument = Argument::value(copies.back());
      }
    } else if (graph::ArgumentList* items = argument.as_list()) {
      std::for_each(items->begin(), items->end(), [&](Argument& item) { replace(item); });
    }
  }

  std::set<ValueId> separate_;
  SeparatedUses result_;
};

size_t uses(const Graph& part, ValueId value) {
  size_t count = 0;
  for (const graph::Node& node : part.nodes) {
    const std::vector<ValueId> operands = Graph::operands(node);
    count += static_cast<size_t>(std::count(operands.begin(), operands.end(), value));
  }
  return count;
}

}  // namespace

SeparatedUses separate_uses(const Graph& part, const std::vector<ValueId>& values) {
  return Separator(part, values).run();
}

std::vector<ValueId> written_values(const Graph& part) {
  std::set<ValueId> written;
  for (const std::vector<ValueId>& roots : graph::analyse_aliases(part).writes) {
    written.insert(roots.begin(), roots.end());
  }
  return {written.begin(), written.end()};
}

size_t gradients_returned(const plan::Plan& plan, const partition::Edge& edge) {
  const bool used_later = std::any_of(plan.stages.edges.begin(), plan.stages.edges.end(), [&](const auto& other) {
    return other.value == edge.value && other.to_stage > edge.to_stage;
  });
  const Graph& part = plan.stages.graphs[static_cast<size_t>(edge.to_stage)];
  if (!used_later) {
    return 1;
  }
  const std::vector<ValueId> written = written_values(part);
  const bool is_written = std::find(written.begin(), written.end(), edge.value) != written.end();
  return is_written ? 1 : uses(part, edge.value);
}

std::vector<ValueId> shared_parameters(const plan::Plan& plan, int stage) {
  std::vector<size_t> count(plan.graph.values.size());
  for (const Graph& part : plan.stages.graphs) {
    for (const graph::Node& node : part.nodes) {
      for (const ValueId id : Graph::operands(node)) {
        ++count[static_cast<size_t>(id)];
      }
    }
  }
  std::vector<ValueId> shared;
  for (const ValueId id : plan.stages.graphs[static_cast<size_t>(stage)].used_tensors()) {
    const bool is_parameter = plan.graph.values[static_cast<size_t>(id)].kind == graph::ValueKind::parameter;
    if (is_parameter && count[static_cast<size_t>(id)] > 1) {
      shared.push_back(id);
    }
  }
  return shared;
}

}  // namespace shardpipe::runtime
