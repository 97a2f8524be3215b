#include "graph/executor.h"

#include <limits>

#include "base/error.h"

namespace shardpipe::graph {
namespace {

constexpr size_t kNever = 0;
constexpr size_t kAlways = std::numeric_limits<size_t>::max();

bool named(const Value& value) {
  return value.kind != ValueKind::result;
}

// Python's integer division and remainder, which exported programs mean.
int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

}  // namespace

Executor::Executor(const Graph& graph, std::span<const ValueId> keep) : graph_(graph), slots_(graph.values.size()) {
  // Index of the last step that reads a value, plus one; kAlways for what outlives the run.
  std::vector<size_t> last_use(graph_.values.size(), kNever);
  for (size_t n = 0; n < graph_.nodes.size(); ++n) {
    for (const ValueId id : Graph::operands(graph_.nodes[n])) {
      last_use[static_cast<size_t>(id)] = n + 1;
    }
  }
  for (const Output& output : graph_.outputs) {
    last_use[static_cast<size_t>(output.value)] = kAlways;
  }
  for (const ValueId id : keep) {
    last_use[static_cast<size_t>(id)] = kAlways;
  }
  for (size_t id = 0; id < graph_.values.size(); ++id) {
    if (named(graph_.values[id])) {
      last_use[id] = kAlways;
    }
  }
  for (size_t n = 0; n < graph_.nodes.size(); ++n) {
    const Node& node = graph_.nodes[n];
    Step step{
        node.op,
        node.scalar,
        static_cast<uint32_t>(operands_.size()),
        static_cast<uint32_t>(node.arguments.size()),
        static_cast<uint32_t>(results_.size()),
        static_cast<uint32_t>(node.results.size()),
        &node};
    std::vector<Operand> operands;
    for (size_t a = 0; a < node.arguments.size(); ++a) {
      const c10::TypePtr type = node.op ? node.op->schema().arguments()[a].type() : c10::TypePtr(c10::IntType::get());
      operands.push_back(operand(node.arguments[a], type, n, last_use));
    }
    // A value read twice by one node may be moved only by its last reader.
    for (size_t a = 0; a < operands.size(); ++a) {
      for (size_t later = a + 1; operands[a].source == Source::last_use && later < operands.size(); ++later) {
        if (operands[later].source == Source::last_use && operands[later].index == operands[a].index) {
          operands[a].source = Source::slot;
        }
      }
    }
    operands_.insert(operands_.end(), operands.begin(), operands.end());
    for (const ValueId id : node.results) {
      const size_t use = last_use[static_cast<size_t>(id)];
      results_.push_back(use == kNever ? kNoValue : id);
      if (use == kAlways) {
        kept_.push_back(id);
      }
    }
    steps_.push_back(step);
  }
  stack_.reserve(64);
}

Executor::Operand Executor::operand(
    const Argument& argument, const c10::TypePtr& type, size_t step, const std::vector<size_t>& last_use) {
  if (const ValueId* id = argument.as_value()) {
    const bool last = last_use[static_cast<size_t>(*id)] == step + 1;
    return {last ? Source::last_use : Source::slot, *id};
  }
  if (const ArgumentList* items = argument.as_list()) {
    c10::TypePtr container = type;
    if (const auto optional = container->cast<c10::OptionalType>()) {
      container = optional->getElementType();
    }
    const auto list_type = container->cast<c10::ListType>();
    if (!list_type) {
      throw_internal("a list is given for an argument of type {}", type->str());
    }
    List list{list_type->getElementType(), {}, true, {}};
    for (const Argument& item : *items) {
      // Items are read, never moved: a list is often built from views that other nodes still need.
      Operand inner = operand(item, list.element, std::numeric_limits<size_t>::max() - 1, last_use);
      inner.source = inner.source == Source::last_use ? Source::slot : inner.source;
      const ValueId* id = item.as_value();
      if (id != nullptr) {
        const ValueKind kind = graph_.values[static_cast<size_t>(*id)].kind;
        list.fixed = list.fixed && (kind == ValueKind::parameter || kind == ValueKind::buffer);
      }
      list.items.push_back(inner);
    }
    lists_.push_back(std::move(list));
    return {Source::list, static_cast<int32_t>(lists_.size() - 1)};
  }
  constants_.push_back(*argument.as_constant());
  return {Source::constant, static_cast<int32_t>(constants_.size() - 1)};
}

void Executor::set(ValueId id, c10::IValue value) {
  if (!named(graph_.values[static_cast<size_t>(id)])) {
    throw_internal("value %{} is computed by a node and cannot be set", id);
  }
  const ValueKind kind = graph_.values[static_cast<size_t>(id)].kind;
  if (kind == ValueKind::parameter || kind == ValueKind::buffer) {
    for (List& list : lists_) {
      list.built = {};
    }
  }
  slots_[static_cast<size_t>(id)] = std::move(value);
}

void Executor::check_set() const {
  std::vector<ValueId> needed = graph_.used_tensors();
  needed.insert(needed.end(), graph_.inputs.begin(), graph_.inputs.end());
  for (const ValueId id : needed) {
    if (slots_[static_cast<size_t>(id)].isNone()) {
      throw_internal("\"{}\" has no value", graph_.values[static_cast<size_t>(id)].name);
    }
  }
}

c10::IValue Executor::build(List& list) {
  const auto item = [&](const Operand& operand) -> const c10::IValue& {
    return operand.source == Source::constant ? constants_[static_cast<size_t>(operand.index)]
                                              : slots_[static_cast<size_t>(operand.index)];
  };
  switch (list.element->kind()) {
    case c10::TypeKind::TensorType: {
      c10::List<at::Tensor> tensors;
      tensors.reserve(list.items.size());
      for (const Operand& operand : list.items) {
        tensors.push_back(item(operand).toTensor());
      }
      return tensors;
    }
    case c10::TypeKind::OptionalType: {
      c10::List<std::optional<at::Tensor>> tensors;
      tensors.reserve(list.items.size());
      for (const Operand& operand : list.items) {
        tensors.push_back(item(operand).toOptional<at::Tensor>());
      }
      return tensors;
    }
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: {
      c10::List<int64_t> numbers;
      numbers.reserve(list.items.size());
      for (const Operand& operand : list.items) {
        numbers.push_back(item(operand).toInt());
      }
      return numbers;
    }
    default:
      throw_internal("a list of {} cannot be built from values", list.element->str());
  }
}

void Executor::push(const Operand& operand) {
  const auto index = static_cast<size_t>(operand.index);
  switch (operand.source) {
    case Source::constant:
      stack_.push_back(constants_[index]);
      return;
    case Source::slot:
      stack_.push_back(slots_[index]);
      return;
    case Source::last_use:
      stack_.push_back(std::move(slots_[index]));
      slots_[index] = {};
      return;
    case Source::list: {
      List& list = lists_[index];
      if (!list.fixed) {
        stack_.push_back(build(list));
        return;
      }
      if (list.built.isNone()) {
        list.built = build(list);
      }
      stack_.push_back(list.built);
      return;
    }
  }
}

void Executor::call_scalar(const Step& step) {
  const int64_t a = stack_[0].toInt();
  const int64_t b = stack_[1].toInt();
  stack_.clear();
  if (b == 0 && (step.scalar == ScalarOperator::floordiv || step.scalar == ScalarOperator::mod)) {
    throw_internal("division by zero");
  }
  switch (step.scalar) {
    case ScalarOperator::add:
      stack_.emplace_back(a + b);
      return;
    case ScalarOperator::sub:
      stack_.emplace_back(a - b);
      return;
    case ScalarOperator::mul:
      stack_.emplace_back(a * b);
      return;
    case ScalarOperator::floordiv:
      stack_.emplace_back(floor_divide(a, b));
      return;
    case ScalarOperator::mod:
      stack_.emplace_back(a - floor_divide(a, b) * b);
      return;
    case ScalarOperator::none:
      throw_internal("a node without an operator");
  }
}

void Executor::rethrow(const Step& step) {
  Error error = current_error();
  stack_.clear();
  error.add_context(fmt::format("operator {} (#{}) in \"{}\"", step.node->op_name(), step.node->id, step.node->module));
  throw error;
}

void Executor::run() {
  if (!checked_) {
    check_set();
    checked_ = true;
  }
  const Step* step = steps_.data();
  const Step* const end = step + steps_.size();
  try {
    for (; step != end; ++step) {
      const Operand* operand = operands_.data() + step->first_operand;
      for (uint32_t i = 0; i < step->num_operands; ++i) {
        push(operand[i]);
      }
      if (step->op) {
        step->op->callBoxed(stack_);
      } else {
        call_scalar(*step);
      }
      const ValueId* result = results_.data() + step->first_result;
      for (uint32_t i = 0; i < step->num_results; ++i) {
        if (result[i] != kNoValue) {
          slots_[static_cast<size_t>(result[i])] = std::move(stack_[i]);
        }
      }
      stack_.clear();
    }
  } catch (...) {
    rethrow(*step);
  }
}

void Executor::release_results() {
  for (const ValueId id : kept_) {
    slots_[static_cast<size_t>(id)] = {};
  }
}

}  // namespace shardpipe::graph
