#include "frontend/trace/canonical.h"

#include <set>

#include "graph/alias.h"

namespace shardpipe::trace {
namespace {

using graph::Argument;
using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;

bool is(const Node& node, const char* name, const char* overload = "") {
  return node.op && node.op->operator_name() == c10::OperatorName(name, overload);
}

bool is_number(const Argument& argument, int64_t number) {
  const c10::IValue* constant = argument.as_constant();
  return constant != nullptr && (constant->isInt() || constant->isDouble()) &&
         constant->toScalar().toDouble() == static_cast<double>(number);
}

std::optional<size_t> num_dims(const Graph& graph, const Argument& argument) {
  const ValueId* id = argument.as_value();
  const Value* value = id != nullptr ? &graph.values[static_cast<size_t>(*id)] : nullptr;
  return value != nullptr && value->shape ? std::optional(value->shape->size()) : std::nullopt;
}

class Canonicaliser {
 public:
  explicit Canonicaliser(Graph& graph) : graph_(graph), producers_(graph.values.size(), nullptr) {
    const graph::AliasAnalysis aliases = graph::analyse_aliases(graph);
    root_ = aliases.root;
    for (const auto& roots : aliases.writes) {
      written_.insert(roots.begin(), roots.end());
    }
    for (const Node& node : graph.nodes) {
      for (const ValueId result : node.results) {
        producers_[static_cast<size_t>(result)] = &node;
      }
    }
  }

  void run() {
    for (Node& node : graph_.nodes) {
      if (is(node, "aten::matmul") || is(node, "aten::mm")) {
        if (const auto weight = transposed(node.arguments[1], node)) {
          become_linear(node, {node.arguments[0], *weight, Argument(c10::IValue())});
        }
      } else if (
          is(node, "aten::addmm") && num_dims(graph_, node.arguments[0]) == 1u && is_number(node.arguments[3], 1) &&
          is_number(node.arguments[4], 1)) {
        if (const auto weight = transposed(node.arguments[2], node)) {
          become_linear(node, {node.arguments[1], *weight, node.arguments[0]});
        }
      }
    }
    drop_unused_transposes();
  }

 private:
  // The matrix that the argument is the transpose of, as `user` sees it.
  std::optional<Argument> transposed(const Argument& argument, const Node& user) const {
    const ValueId* id = argument.as_value();
    const Node* node = id != nullptr ? producers_[static_cast<size_t>(*id)] : nullptr;
    // A transpose made without grad would cut the weight off.
    if (node == nullptr || !is(*node, "aten::t") || node->grad_enabled != user.grad_enabled ||
        num_dims(graph_, node->arguments[0]) != 2u) {
      return std::nullopt;
    }
    const ValueId matrix = *node->arguments[0].as_value();
    return written_.count(root_[static_cast<size_t>(matrix)]) == 0 ? std::optional(Argument::value(matrix))
                                                                   : std::nullopt;
  }

  void become_linear(Node& node, std::vector<Argument> arguments) {
    static const c10::OperatorHandle linear = graph::find_operator("aten::linear");
    node.op = linear;
    node.arguments = std::move(arguments);
    changed_ = true;
  }

  void drop_unused_transposes() {
    if (!changed_) {
      return;
    }
    std::set<ValueId> used;
    for (const graph::Output& output : graph_.outputs) {
      used.insert(output.value);
    }
    for (const Node& node : graph_.nodes) {
      const auto operands = Graph::operands(node);
      used.insert(operands.begin(), operands.end());
    }
    std::erase_if(
        graph_.nodes, [&](const Node& node) { return is(node, "aten::t") && used.count(node.results[0]) == 0; });
  }

  Graph& graph_;
  std::vector<ValueId> root_;
  std::set<ValueId> written_;
  std::vector<const Node*> producers_;
  bool changed_ = false;
};

}  // namespace

void canonicalise_linear(Graph& graph) {
  Canonicaliser(graph).run();
}

}  // namespace shardpipe::trace
