#include "frontend/trace/size_nodes.h"

#include "base/error.h"

namespace shardpipe::trace {

using graph::Argument;
using graph::Size;
using graph::ValueId;

ValueId SizeNodes::value(const Size& size) {
  const std::string key = size.str();
  if (const auto found = values_.find(key); found != values_.end()) {
    return found->second;
  }
  const std::string name = size.symbols().front();
  return values_[key] = size == Size::symbol(name) ? dimension(name) : *sum_of_products(size).as_value();
}

// The constant term comes first in terms(): c, c + b*x, c + b*x + a*x*y, ...
Argument SizeNodes::sum_of_products(const Size& size) {
  std::optional<Argument> sum;
  for (const auto& [names, coefficient] : size.terms()) {
    std::optional<Argument> product;
    if (names.empty() || coefficient != 1) {
      product = Argument(c10::IValue(coefficient));
    }
    for (const std::string& name : names) {
      const Argument factor = Argument::value(value(Size::symbol(name)));
      product = product ? scalar(graph::ScalarOperator::mul, *product, factor) : factor;
    }
    sum = sum ? scalar(graph::ScalarOperator::add, *sum, *product) : *product;
  }
  return *sum;
}

ValueId SizeNodes::dimension(const std::string& name) {
  ValueId tensor = 0;  // inputs, then states: the order of the recorder's declarations
  for (const auto* specs : {&program_.inputs, &program_.states}) {
    for (const TensorSpec& spec : *specs) {
      for (size_t d = 0; d < spec.shape.size(); ++d) {
        if (spec.shape[d] == Size::symbol(name)) {
          graph::Node node;
          node.op = graph::find_operator("aten::sym_size.int");
          node.arguments = {Argument::value(tensor), Argument(c10::IValue(static_cast<int64_t>(d)))};
          return emit(std::move(node));
        }
      }
      ++tensor;
    }
  }
  throw_usage("dimension {} is not itself an extent of an input or state", name);
}

Argument SizeNodes::scalar(graph::ScalarOperator op, const Argument& a, const Argument& b) {
  graph::Node node;
  node.scalar = op;
  node.arguments = {a, b};
  return Argument::value(emit(std::move(node)));
}

ValueId SizeNodes::emit(graph::Node node) {
  graph::Value value;
  value.type = graph::ValueType::integer;
  const ValueId id = graph_.add_value(std::move(value));
  node.id = next_node_id_++;
  node.results = {id};
  graph_.nodes.push_back(std::move(node));
  return id;
}

}  // namespace shardpipe::trace
