#include "graph/alias.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

namespace shardpipe::graph {
namespace {

// The alias sets of an argument or result, those of a list's items included: "Tensor(a!)[]", "Tensor(a -> *)".
struct AliasSets {
  std::set<c10::Symbol> names;
  bool written = false;

  explicit AliasSets(const c10::AliasInfo* info) {
    if (info != nullptr) {
      add(*info);
    }
  }
  bool intersects(const AliasSets& other) const {
    return std::any_of(names.begin(), names.end(), [&](c10::Symbol name) { return other.names.count(name) > 0; });
  }

 private:
  void add(const c10::AliasInfo& info) {
    names.insert(info.beforeSets().begin(), info.beforeSets().end());
    written = written || info.isWrite();
    for (const c10::AliasInfo& contained : info.containedTypes()) {
      add(contained);
    }
  }
};

// The batch norms update their running statistics (arguments 3 and 4) in training mode (argument 5), which their
// schemas do not say.
bool writes_silently(const Node& node, size_t argument) {
  constexpr std::array<std::string_view, 4> kNames = {
      "aten::batch_norm", "aten::cudnn_batch_norm", "aten::instance_norm", "aten::native_batch_norm"};
  if ((argument != 3 && argument != 4) ||
      std::find(kNames.begin(), kNames.end(), node.op->operator_name().name) == kNames.end()) {
    return false;
  }
  const c10::IValue* training = node.arguments[5].as_constant();
  return training == nullptr || !training->isBool() || training->toBool();
}

// What the branches of a cond write of their inputs.
void add_branch_writes(const Node& node, const std::vector<ValueId>& root, std::vector<ValueId>& writes) {
  for (const std::shared_ptr<const Graph>& branch : node.branches) {
    const AliasAnalysis inner = analyse_aliases(*branch);
    for (const std::vector<ValueId>& written : inner.writes) {
      for (const ValueId id : written) {
        const auto input = std::find(branch->inputs.begin(), branch->inputs.end(), id);
        const auto at = static_cast<size_t>(input - branch->inputs.begin()) + 1;
        const ValueId* operand =
            input != branch->inputs.end() && at < node.arguments.size() ? node.arguments[at].as_value() : nullptr;
        if (operand != nullptr) {
          writes.push_back(root[static_cast<size_t>(*operand)]);
        }
      }
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
    if (!node.branches.empty()) {
      add_branch_writes(node, analysis.root, analysis.writes[n]);
    }
    if (!node.op) {
      continue;
    }
    const c10::FunctionSchema& schema = node.op->schema();
    for (size_t a = 0; a < schema.arguments().size(); ++a) {
      const AliasSets sets(schema.arguments()[a].alias_info());
      const bool written = sets.written || writes_silently(node, a);
      if (sets.names.empty() && !written) {
        continue;
      }
      for (const ValueId operand : Graph::operands(node.arguments[a])) {
        const ValueId root = analysis.root[static_cast<size_t>(operand)];
        if (written) {
          analysis.writes[n].push_back(root);
        }
        for (size_t r = 0; r < node.results.size(); ++r) {
          if (sets.intersects(AliasSets(schema.returns()[node.returns_list() ? 0 : r].alias_info()))) {
            analysis.root[static_cast<size_t>(node.results[r])] = root;
          }
        }
      }
    }
  }
  return analysis;
}

}  // namespace shardpipe::graph
