#include "graph/alias.h"

#include <algorithm>
#include <numeric>

namespace shardpipe::graph {
namespace {

bool intersects(const c10::AliasInfo& a, const c10::AliasInfo& b) {
  return std::any_of(a.beforeSets().begin(), a.beforeSets().end(), [&](const auto& set) {
    return b.beforeSets().count(set) > 0 || b.afterSets().count(set) > 0;
  });
}

void append(const Argument& argument, std::vector<ValueId>& ids) {
  if (const ValueId* id = argument.as_value()) {
    ids.push_back(*id);
  } else if (const ArgumentList* list = argument.as_list()) {
    for (const Argument& item : *list) {
      append(item, ids);
    }
  }
}

}  // namespace

AliasAnalysis analyse_aliases(const Graph& graph) {
  AliasAnalysis analysis;
  analysis.root.resize(graph.values.size());
  std::iota(analysis.root.begin(), analysis.root.end(), 0);
  analysis.writes.resize(graph.nodes.size());
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    if (!node.op) {
      continue;
    }
    const c10::FunctionSchema& schema = node.op->schema();
    for (size_t a = 0; a < std::min(node.arguments.size(), schema.arguments().size()); ++a) {
      const c10::AliasInfo* info = schema.arguments()[a].alias_info();
      if (info == nullptr) {
        continue;
      }
      std::vector<ValueId> operands;
      append(node.arguments[a], operands);
      for (const ValueId operand : operands) {
        const ValueId root = analysis.root[static_cast<size_t>(operand)];
        if (info->isWrite()) {
          analysis.writes[n].push_back(root);
        }
        for (size_t r = 0; r < std::min(node.results.size(), schema.returns().size()); ++r) {
          const c10::AliasInfo* result = schema.returns()[r].alias_info();
          if (result != nullptr && intersects(*info, *result)) {
            analysis.root[static_cast<size_t>(node.results[r])] = root;
          }
        }
      }
    }
  }
  return analysis;
}

}  // namespace shardpipe::graph
