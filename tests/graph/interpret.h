#pragma once

#include <map>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::test {

/// The reference of the executor: each node's operator called on its own stack, every value kept.
struct Interpreter {
  explicit Interpreter(const graph::Graph& program) : graph(program), values(program.values.size()) {}

  c10::IValue argument(const graph::Argument& argument, const c10::TypePtr& type) const {
    if (const graph::ValueId* id = argument.as_value()) {
      return values.at(static_cast<size_t>(*id));
    }
    if (const c10::IValue* constant = argument.as_constant()) {
      return *constant;
    }
    const c10::TypePtr list = type->kind() == c10::TypeKind::OptionalType ? type->containedType(0) : type;
    c10::impl::GenericList items(list->containedType(0));
    for (const graph::Argument& item : *argument.as_list()) {
      items.push_back(this->argument(item, list->containedType(0)));
    }
    return items;
  }

  void call(const graph::Node& node) {
    torch::jit::Stack stack;
    for (size_t a = 0; a < node.arguments.size(); ++a) {
      stack.push_back(argument(node.arguments[a], node.op->schema().arguments()[a].type()));
    }
    node.op->callBoxed(stack);
    for (size_t r = 0; r < node.results.size(); ++r) {
      values.at(static_cast<size_t>(node.results[r])) =
          node.returns_list() ? c10::IValue(stack.at(0).toTensorVector().at(r)) : stack.at(r);
    }
  }

  const at::Tensor& tensor(graph::ValueId id) const { return values.at(static_cast<size_t>(id)).toTensor(); }

  const graph::Graph& graph;
  std::vector<c10::IValue> values;
};

}  // namespace shardpipe::test
