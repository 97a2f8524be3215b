#include "tensor/local_form.h"

#include "tensor/op_view.h"

namespace shardpipe::tensor {

using graph::Argument;
using graph::ArgumentList;
using graph::kNoValue;
using graph::Node;
using graph::Size;
using graph::ValueId;

namespace {

// A list argument whose items can be set one by one.
ArgumentList items_of(const Argument& argument) {
  if (argument.as_list() != nullptr) {
    return *argument.as_list();
  }
  ArgumentList items;
  for (const int64_t number : argument.as_constant()->toIntVector()) {
    items.emplace_back(c10::IValue(number));
  }
  return items;
}

// Constants stay one constant.
Argument list_of(ArgumentList items) {
  std::vector<int64_t> numbers;
  for (const Argument& item : items) {
    if (item.as_constant() == nullptr) {
      return Argument::list(std::move(items));
    }
    numbers.push_back(item.as_constant()->toInt());
  }
  return c10::IValue(numbers);
}

}  // namespace

bool LocalForm::is_added_once(size_t operand) const {
  const OpView op(part_.graph_, node_);
  const bool last = is("aten::linear") || is("aten::conv1d") || is("aten::conv2d") || is("aten::conv3d");
  return (last && op.operand_of(2) == operand) || (is("aten::addmm") && operand == 0);
}

void LocalForm::set_size(Argument& sizes, size_t place, const Shard& shard, int dim) {
  ArgumentList items = items_of(sizes);
  const graph::Shape& shape = *part_.graph_.values[static_cast<size_t>(node_.results[0])].shape;
  const Size& size = shape[static_cast<size_t>(dim)];
  Argument& item = items[place];
  if (item.as_constant() != nullptr && item.as_constant()->toInt() < 0) {
    return;  // follows from the others
  }
  if (size.is_constant()) {
    item = c10::IValue(local_size(size, shard, part_.part_).constant());
  } else if (const ValueId* whole = item.as_value()) {
    const ValueId unit = part_.scalar(graph::ScalarOperator::floordiv, *whole, shard.all_units());
    const int64_t units = shard.units[static_cast<size_t>(part_.part_)];
    item = Argument::value(part_.scalar(graph::ScalarOperator::mul, unit, units));
  }
  sizes = list_of(std::move(items));
}

void LocalForm::fix_sizes(Node& node) {
  const auto result = results_.find(0);
  if (result == results_.end()) {
    return;
  }
  const int dim = result->second.dim;
  if (is("aten::view") || is("aten::reshape") || is("aten::_unsafe_view") || is("aten::expand")) {
    set_size(node.arguments[1], static_cast<size_t>(dim), result->second, dim);
  } else if (is("aten::unflatten")) {
    const OpView op(part_.graph_, node_);
    const int first = wrap_dim(op.integer(1, 0), op.operand_shape(0)->size());
    const size_t count = items_of(node.arguments[2]).size();
    if (dim >= first && dim < first + static_cast<int>(count)) {
      set_size(node.arguments[2], static_cast<size_t>(dim - first), result->second, dim);
    }
  }
}

void LocalForm::fix_split(Node& node) {
  const OpView op(part_.graph_, node_);
  const int dim = wrap_dim(op.integer(2, 0), op.operand_shape(0)->size());
  if (operands_.at(0).dim != dim) {
    return;
  }
  if (is("aten::split")) {
    const Shard& first = results_.at(0);
    node.arguments[1] = c10::IValue(first.length(op.integer(1, 0), part_.part_));
  } else if (is("aten::split_with_sizes")) {
    ArgumentList items = items_of(node.arguments[1]);
    for (size_t r = 0; r < items.size(); ++r) {
      items[r] = c10::IValue(results_.at(r).length(results_.at(r).blocks[0], part_.part_));
    }
    node.arguments[1] = list_of(std::move(items));
  }
}

void LocalForm::add_bias(Node& node, size_t argument, const std::vector<ValueId>& operands) {
  const OpView op(part_.graph_, node_);
  const std::optional<size_t> place = op.operand_of(argument);
  if (!place) {
    return;
  }
  ValueId bias = operands[*place];
  node.arguments[argument] = c10::IValue();
  if (!is("aten::linear")) {  // of a convolution: [out] as [out, 1, ..]
    const graph::Shape& result = *part_.graph_.values[static_cast<size_t>(node_.results[0])].shape;
    std::vector<int64_t> sizes(result.size() - 1, 1);
    sizes[0] = -1;
    graph::Value value;
    value.dtype = part_.local_.values[static_cast<size_t>(bias)].dtype;
    value.shape = graph::Shape(sizes.begin(), sizes.end());
    (*value.shape)[0] = (*part_.local_.values[static_cast<size_t>(bias)].shape)[0];
    bias = part_.add_node("aten::view", {Argument::value(bias), c10::IValue(sizes)}, value);
  }
  part_.lays_[static_cast<size_t>(node_.results[0])].addend = bias;
}

void LocalForm::emit(Node node, const std::vector<ValueId>& operands, bool sums) {
  const OpView op(part_.graph_, node_);
  fix_sizes(node);
  if (is("aten::split") || is("aten::split_with_sizes")) {
    fix_split(node);
  }
  if (sums && (is("aten::linear") || is("aten::conv1d") || is("aten::conv2d") || is("aten::conv3d"))) {
    add_bias(node, 2, operands);
  } else if (sums && is("aten::addmm")) {
    // beta bias + alpha x w: alpha x w are the summands
    const double beta = op.number(3, 1);
    const double alpha = op.number(4, 1);
    Lay& lay = part_.lays_[static_cast<size_t>(node_.results[0])];
    const auto times = [&](ValueId value, double by) {
      return by == 1 ? value : part_.call("aten::mul.Tensor", {Argument::value(value), c10::IValue(by)}, value);
    };
    lay.addend = beta == 0 ? kNoValue : times(operands[0], beta);
    const ValueId x = times(operands[1], alpha);
    node.op = graph::find_operator("aten::mm");
    node.arguments = {Argument::value(x), Argument::value(operands[2])};
  } else if (is("aten::cross_entropy_loss")) {
    const Shard& classes = operands_.at(0);
    node.op = graph::find_operator("shardpipe::cross_entropy_part");
    node.arguments = {node.arguments[0],          node.arguments[1], c10::IValue(classes.blocks[0]),
                      c10::IValue(classes.units), node.arguments[3], node.arguments[4],
                      c10::IValue(kAxis)};
    part_.note("cross_entropy", node.results[0], false);
  } else if (is("aten::embedding") && sums) {
    const Shard& rows = operands_.at(0);
    node.op = graph::find_operator("shardpipe::embedding_part");
    node.arguments = {node.arguments[0],       node.arguments[1], c10::IValue(rows.blocks[0]),
                      c10::IValue(rows.units), node.arguments[2], c10::IValue(kAxis)};
  } else if (
      (is("aten::conv1d") || is("aten::conv2d") || is("aten::conv3d")) && operands_.count(0) > 0 &&
      operands_.at(0).dim == 1 && !sums) {
    const Shard& channels = operands_.at(0);
    node.arguments[6] = c10::IValue(channels.length(channels.blocks[0], part_.part_));
  }
  part_.local_.nodes.push_back(std::move(node));
}

}  // namespace shardpipe::tensor
