#include "tensor/pins.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace shardpipe::tensor {
namespace {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

// Where a weight is used: dimensions of the weight itself, also where the product has it transposed.
struct Use {
  size_t node = 0;
  int column = -1;  // along which results are divided
  int row = -1;     // along which results are sums
};

class Pinner {
 public:
  Pinner(const AxisGraph& graph, const ShardOptions& options)
      : axes_(graph), graph_(graph.graph()), options_(options) {}

  PinnedTensors run() {
    for (const PinRule& rule : options_.pins) {
      bool found = false;
      for (size_t id = 0; id < graph_.values.size(); ++id) {
        const Value& value = graph_.values[id];
        if (value.kind == ValueKind::parameter && value.shape && is_meant(rule.pattern, value)) {
          found = true;
          pin(static_cast<ValueId>(id), rule);
        }
      }
      if (!found && !rule.wish) {
        throw Error(
            ErrorCode::usage, fmt::format("--tp-plan: \"{}\" matches no parameter of the model", rule.pattern),
            "`shardpipe plan --json` lists them");
      }
    }
    return std::move(pins_);
  }

 private:
  static bool is_meant(const std::string& pattern, const Value& value) {
    const auto fits = [&](const std::string& name) {
      const size_t dot = name.rfind('.');
      return matches(pattern, name) || (dot != std::string::npos && matches(pattern, name.substr(0, dot)));
    };
    return fits(value.name) || std::any_of(value.tied_names.begin(), value.tied_names.end(), fits);
  }

  void pin(ValueId id, const PinRule& rule) {
    pins_.dims.erase(id);
    pins_.whole.erase(id);
    const Value& value = graph_.values[static_cast<size_t>(id)];
    const std::vector<Use> uses = uses_of(id);
    if (rule.pin == Pin::replicate || value.shape->empty()) {
      pins_.whole.insert(id);
      return;
    }
    if (value.shape->size() == 1) {  // a bias lies as the results do
      if (rule.pin == Pin::colwise) {
        set(id, 0, rule);
      } else {
        pins_.whole.insert(id);
      }
      return;
    }
    int dim = rule.pin == Pin::colwise ? 0 : 1;
    if (rule.pin == Pin::vocab) {
      dim = 0;
    } else if (!uses.empty()) {
      const int found = rule.pin == Pin::colwise ? uses[0].column : uses[0].row;
      dim = found >= 0 ? found : dim;
    }
    set(id, dim, rule);
    for (const Use& use : uses) {
      const ValueId result = graph_.nodes[use.node].results[0];
      if (rule.gather_output) {
        pins_.made_whole.insert(result);
      } else {
        pins_.made_whole.erase(result);  // of an earlier rule
      }
    }
  }

  void set(ValueId id, int dim, const PinRule& rule) {
    const Value& value = graph_.values[static_cast<size_t>(id)];
    const graph::Size& size = (*value.shape)[static_cast<size_t>(dim)];
    const bool enough = size.is_constant() && size.constant() / rule.unit >= options_.parts;
    if (!enough && rule.wish) {
      return;
    }
    if (!enough) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "--tp-plan: \"{}\" divides dimension {} of {}, which has {} elements, into {}", rule.pattern, dim,
              value.name, size.str(), options_.parts),
          "use \"replicate\", or a smaller --tp");
    }
    pins_.dims[id] = {dim, rule.unit};
  }

  std::vector<Use> uses_of(ValueId id) const {
    std::vector<Use> uses;
    for (const auto& [n, place] : axes_.consumers(id)) {
      const Node& node = graph_.nodes[n];
      const std::string name = node.op ? node.op->operator_name().name : "";
      if (name == "aten::t" || name == "aten::transpose") {
        for (Use use : uses_of(node.results[0])) {
          use.column = use.column < 0 ? -1 : 1 - use.column;
          use.row = use.row < 0 ? -1 : 1 - use.row;
          uses.push_back(use);
        }
        continue;
      }
      Use use;
      use.node = n;
      for (const OpAxis& axis : axes_.axes(n)) {
        const auto at = axis.operands.find(place);
        if (at != axis.operands.end()) {
          (axis.sums ? use.row : use.column) = at->second.dim;
        }
      }
      uses.push_back(use);
    }
    return uses;
  }

  const AxisGraph& axes_;
  const Graph& graph_;
  const ShardOptions& options_;
  PinnedTensors pins_;
};

}  // namespace

bool matches(const std::string& pattern, const std::string& path) {
  size_t p = 0;
  size_t at = 0;
  while (p < pattern.size()) {
    if (pattern[p] == '*') {
      at = std::min(path.find('.', at), path.size());
      ++p;
    } else if (at < path.size() && pattern[p] == path[at]) {
      ++p;
      ++at;
    } else {
      return false;
    }
  }
  return at == path.size();
}

PinnedTensors find_pins(const AxisGraph& graph, const ShardOptions& options) {
  return Pinner(graph, options).run();
}

}  // namespace shardpipe::tensor
