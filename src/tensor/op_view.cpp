#include "tensor/op_view.h"

namespace shardpipe::tensor {

using graph::Argument;
using graph::Graph;
using graph::Shape;
using graph::Size;
using graph::ValueId;

OpView::OpView(const Graph& graph, const graph::Node& node)
    : graph_(graph), node_(node), operands_(Graph::operands(node)) {
  size_t count = 0;
  for (const Argument& argument : node.arguments) {
    const size_t values = Graph::operands(argument).size();
    first_operand_.push_back(values > 0 ? std::optional(count) : std::nullopt);
    count += values;
  }
}

std::optional<size_t> OpView::operand_of(size_t argument) const {
  return argument < first_operand_.size() ? first_operand_[argument] : std::nullopt;
}

const Shape* OpView::shape_of(ValueId id) const {
  const graph::Value& value = graph_.values[static_cast<size_t>(id)];
  return value.type == graph::ValueType::tensor && value.shape ? &*value.shape : nullptr;
}

const Shape* OpView::operand_shape(size_t operand) const {
  return shape_of(operands_[operand]);
}

const Shape* OpView::result_shape(size_t result) const {
  return result < node_.results.size() ? shape_of(node_.results[result]) : nullptr;
}

const Shape* OpView::shape(size_t argument) const {
  const std::optional<size_t> operand = operand_of(argument);
  return operand ? operand_shape(*operand) : nullptr;
}

const c10::IValue* OpView::constant(size_t argument) const {
  return argument < node_.arguments.size() ? node_.arguments[argument].as_constant() : nullptr;
}

int64_t OpView::integer(size_t argument, int64_t otherwise) const {
  const c10::IValue* value = constant(argument);
  return value != nullptr && value->isInt() ? value->toInt() : otherwise;
}

bool OpView::boolean(size_t argument, bool otherwise) const {
  const c10::IValue* value = constant(argument);
  return value != nullptr && value->isBool() ? value->toBool() : otherwise;
}

double OpView::number(size_t argument, double otherwise) const {
  const c10::IValue* value = constant(argument);
  return value != nullptr && (value->isDouble() || value->isInt()) ? value->toScalar().toDouble() : otherwise;
}

std::optional<std::vector<int64_t>> OpView::integers(size_t argument) const {
  const c10::IValue* value = constant(argument);
  if (value != nullptr && value->isIntList()) {
    return value->toIntVector();
  }
  if (value != nullptr && value->isInt()) {
    return std::vector<int64_t>{value->toInt()};
  }
  if (argument < node_.arguments.size() && node_.arguments[argument].as_list() != nullptr) {
    std::vector<int64_t> numbers;
    for (const Argument& item : *node_.arguments[argument].as_list()) {
      if (item.as_constant() == nullptr || !item.as_constant()->isInt()) {
        return std::nullopt;
      }
      numbers.push_back(item.as_constant()->toInt());
    }
    return numbers;
  }
  return std::nullopt;
}

bool OpView::is_none(size_t argument) const {
  return argument >= node_.arguments.size() || (constant(argument) != nullptr && constant(argument)->isNone());
}

int wrap_dim(int64_t dim, size_t dims) {
  return static_cast<int>(dim < 0 ? dim + static_cast<int64_t>(dims) : dim);
}

bool divisible(const Size& size) {
  return !size.is_constant() || size.constant() > 1;
}

}  // namespace shardpipe::tensor
