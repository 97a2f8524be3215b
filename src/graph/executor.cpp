#include "graph/executor.h"

#include <ATen/ops/scalar_tensor.h>

#include "base/error.h"
#include "graph/autocast.h"
#include "graph/branch_gradient.h"
#include "graph/scalar.h"

namespace shardpipe::graph {
namespace {

size_t index(ValueId id) {
  return static_cast<size_t>(id);
}

bool is_tensor(const c10::Type& type) {
  return type.kind() == c10::TypeKind::OptionalType ? is_tensor(*type.containedType(0))
                                                    : type.kind() == c10::TypeKind::TensorType;
}

// Python's `x + 1`: the 1 as a tensor that leaves the dtype of the result to x.
at::Tensor wrapped_number(const c10::IValue& number) {
  const at::ScalarType dtype = number.isBool()            ? at::kBool
                               : number.isInt()           ? at::kLong
                               : number.isComplexDouble() ? at::kComplexDouble
                                                          : at::kDouble;
  at::Tensor tensor = at::scalar_tensor(number.toScalar(), dtype);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

// Type of an argument of a node: cond and the scalar operators take anything as it is.
c10::TypePtr type_of(const Node& node, size_t argument) {
  return node.op ? node.op->schema().arguments()[argument].type() : c10::TypePtr(c10::AnyType::get());
}

std::vector<at::Tensor*> tensors_of(std::span<c10::IValue> values) {
  std::vector<at::Tensor*> tensors;
  for (c10::IValue& value : values) {
    if (value.isTensor()) {
      tensors.push_back(&value.toTensor());
    }
  }
  return tensors;
}

}  // namespace

Executor::Executor(const Graph& graph, std::span<const ValueId> keep) : graph_(graph), slots_(graph.values.size()) {
  for (const Node& node : graph_.nodes) {
    for (size_t a = 0; a < node.arguments.size(); ++a) {
      operands_.push_back(operand(node.arguments[a], type_of(node, a)));
    }
    results_.insert(results_.end(), node.results.begin(), node.results.end());
    steps_.push_back(
        {node.op, node.scalar, node.returns_list(), !node.grad_enabled, autocast_index(node.autocast),
         node.branches.empty() ? -1 : static_cast<int32_t>(branches_.size()),
         static_cast<uint32_t>(node.arguments.size()), static_cast<uint32_t>(node.results.size())});
    for (const std::shared_ptr<const Graph>& branch : node.branches) {
      branches_.emplace_back(*branch);
    }
  }
  find_last_uses(keep);
  stack_.reserve(64);
}

int32_t Executor::autocast_index(const std::optional<Autocast>& state) {
  auto found = std::find(autocasts_.begin(), autocasts_.end(), state);
  if (found == autocasts_.end()) {
    found = autocasts_.insert(autocasts_.end(), state);
  }
  return static_cast<int32_t>(found - autocasts_.begin());
}

Executor::Operand Executor::operand(const Argument& argument, const c10::TypePtr& type) {
  if (const ValueId* id = argument.as_value()) {
    const bool wrap = is_tensor(*type) && graph_.values[index(*id)].type != ValueType::tensor;
    return {wrap ? Source::number : Source::slot, *id};
  }
  if (const ArgumentList* items = argument.as_list()) {
    return list_operand(*items, type);
  }
  const c10::IValue& constant = *argument.as_constant();
  constants_.push_back(constant.isScalar() && is_tensor(*type) ? c10::IValue(wrapped_number(constant)) : constant);
  return {Source::constant, static_cast<int32_t>(constants_.size() - 1)};
}

Executor::Operand Executor::list_operand(const ArgumentList& items, const c10::TypePtr& type) {
  const c10::TypePtr list_type = type->kind() == c10::TypeKind::OptionalType ? type->containedType(0) : type;
  if (list_type->kind() != c10::TypeKind::ListType) {
    throw_internal("a list is given for an argument of type {}", type->str());
  }
  List list{list_type->containedType(0), {}};
  bool fixed = true;
  for (const Argument& item : items) {
    list.items.push_back(operand(item, list.element));
    const ValueId* id = item.as_value();
    const ValueKind kind = id != nullptr ? graph_.values[index(*id)].kind : ValueKind::parameter;
    fixed = fixed && item.as_list() == nullptr && (kind == ValueKind::parameter || kind == ValueKind::buffer);
  }
  if (fixed) {
    constants_.emplace_back();
    const auto constant = static_cast<int32_t>(constants_.size() - 1);
    fixed_lists_.emplace_back(constant, std::move(list));
    return {Source::constant, constant};
  }
  lists_.push_back(std::move(list));
  return {Source::list, static_cast<int32_t>(lists_.size() - 1)};
}

// Walks back from the outputs: the first reader met of a value that nothing later needs is its last one and may move
// it.
void Executor::find_last_uses(std::span<const ValueId> keep) {
  std::vector<bool> needed(graph_.values.size());
  for (size_t id = 0; id < needed.size(); ++id) {
    needed[id] = graph_.values[id].kind != ValueKind::result;
  }
  const auto outlives = [&](ValueId id) {
    if (!needed[index(id)]) {
      needed[index(id)] = true;
      kept_.push_back(id);
    }
  };
  for (const Output& output : graph_.outputs) {
    outlives(output.value);
  }
  std::for_each(keep.begin(), keep.end(), outlives);
  for (const Update& update : graph_.updates) {
    needed[index(update.value)] = true;
  }

  const std::function<void(Operand&)> read = [&](Operand& operand) {
    if (operand.source == Source::list) {
      auto& items = lists_[static_cast<size_t>(operand.index)].items;
      std::for_each(items.rbegin(), items.rend(), read);
    } else if (operand.source == Source::slot && !needed[index(operand.index)]) {
      operand.source = Source::last_use;
      needed[index(operand.index)] = true;
    } else if (operand.source == Source::number) {
      needed[index(operand.index)] = true;
    }
  };
  auto operand = operands_.rbegin();
  auto result = results_.rbegin();
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    for (uint32_t i = 0; i < step->num_results; ++i, ++result) {
      *result = needed[index(*result)] ? *result : kNoValue;
    }
    for (uint32_t i = 0; i < step->num_operands; ++i, ++operand) {
      read(*operand);
    }
  }
}

void Executor::set(ValueId id, c10::IValue value) {
  if (index(id) >= slots_.size()) {  // kNoValue of Graph::find included
    throw_internal("the graph has no value %{}", id);
  }
  const ValueKind kind = graph_.values[index(id)].kind;
  if (kind == ValueKind::result) {
    throw_internal("value %{} is computed by a node and cannot be set", id);
  }
  ready_ = ready_ && kind != ValueKind::parameter && kind != ValueKind::buffer && !value.isNone();
  slots_[index(id)] = std::move(value);
}

void Executor::prepare() {
  std::vector<ValueId> ids = graph_.used_tensors();
  ids.insert(ids.end(), graph_.inputs.begin(), graph_.inputs.end());
  for (const ValueId id : ids) {
    if (slots_[index(id)].isNone()) {
      throw_internal("\"{}\" has no value", graph_.values[index(id)].name);
    }
  }
  for (const auto& [constant, list] : fixed_lists_) {
    constants_[static_cast<size_t>(constant)] = build(list);
  }
  ready_ = true;
}

c10::IValue Executor::build(const List& list) {
  c10::impl::GenericList items(list.element);
  items.reserve(list.items.size());
  for (const Operand& operand : list.items) {
    push(operand);
    items.push_back(std::move(stack_.back()));
    stack_.pop_back();
  }
  return items;
}

inline void Executor::push(const Operand& operand) {
  const auto at = static_cast<size_t>(operand.index);
  switch (operand.source) {
    case Source::constant:
      stack_.push_back(constants_[at]);
      return;
    case Source::slot:
      stack_.push_back(slots_[at]);
      return;
    case Source::last_use:
      stack_.push_back(std::move(slots_[at]));  // leaves None
      return;
    case Source::number:
      stack_.push_back(wrapped_number(slots_[at]));
      return;
    case Source::list:
      stack_.push_back(build(lists_[at]));
      return;
  }
}

// The condition and the inputs are on the stack; leaves the outputs there.
void Executor::call_branch(const Step& step) {
  const c10::IValue& condition = stack_[0];
  const bool yes = condition.isTensor() ? condition.toTensor().item<bool>() : condition.toBool();
  Executor& branch = branches_[static_cast<size_t>(step.branches) + (yes ? 0 : 1)];
  const std::vector<ValueId>& inputs = branch.graph_.inputs;
  const BranchGradient gradient(tensors_of(std::span(stack_).subspan(1)));
  for (size_t i = 0; i < inputs.size(); ++i) {
    branch.set(inputs[i], std::move(stack_[i + 1]));
  }
  branch.run();
  stack_.clear();
  for (const Output& output : branch.graph_.outputs) {
    stack_.push_back(branch.get(output.value));
  }
  gradient.finish(tensors_of(stack_));
  branch.release_results();
  for (const ValueId input : inputs) {
    branch.set(input, {});
  }
}

inline void Executor::store_results(const Step& step, const ValueId* results) {
  if (step.returns_list) {
    c10::List<at::Tensor> items = std::move(stack_[0]).toTensorList();
    if (items.size() != step.num_results) {
      throw_internal("it returns {} tensors, the graph has {}", items.size(), step.num_results);
    }
    for (uint32_t i = 0; i < step.num_results; ++i) {
      if (results[i] != kNoValue) {
        slots_[index(results[i])] = items.extract(i);
      }
    }
  } else {
    for (uint32_t i = 0; i < step.num_results; ++i) {
      if (results[i] != kNoValue) {
        slots_[index(results[i])] = std::move(stack_[i]);
      }
    }
  }
  stack_.clear();
}

void Executor::rethrow(const Step& step) {
  Error error = current_error();
  stack_.clear();
  for (const ValueId id : results_) {
    if (id != kNoValue) {
      slots_[index(id)] = {};
    }
  }
  const Node& node = graph_.nodes[static_cast<size_t>(&step - steps_.data())];
  error.add_context(fmt::format("operator {} (#{}) in \"{}\"", node.op_name(), node.id, node.module));
  throw error;
}

void Executor::run() {
  if (!ready_) {
    prepare();
  }
  const bool grad = c10::GradMode::is_enabled();
  const c10::AutoGradMode restore(grad);
  AutocastScope autocast_scope;
  int32_t autocast = 0;
  bool no_grad = false;
  const Operand* operand = operands_.data();
  const ValueId* result = results_.data();
  for (const Step& step : steps_) {
    try {
      for (uint32_t i = 0; i < step.num_operands; ++i) {
        push(*operand++);
      }
      if (step.no_grad != no_grad) {
        no_grad = step.no_grad;
        c10::GradMode::set_enabled(grad && !no_grad);
      }
      if (step.autocast != autocast) {
        autocast = step.autocast;
        autocast_scope.enter(autocasts_[static_cast<size_t>(autocast)]);
      }
      if (step.op) {
        step.op->callBoxed(stack_);
      } else if (step.branches >= 0) {
        call_branch(step);
      } else {
        c10::IValue value = compute(step.scalar, stack_);
        stack_.clear();
        stack_.push_back(std::move(value));
      }
      store_results(step, result);
      result += step.num_results;
    } catch (...) {
      rethrow(step);
    }
  }
  for (const Update& update : graph_.updates) {
    slots_[index(update.state)] = slots_[index(update.value)].toTensor().detach();
  }
  for (const Update& update : graph_.updates) {
    const bool is_kept = std::find(kept_.begin(), kept_.end(), update.value) != kept_.end();
    if (!is_kept && graph_.values[index(update.value)].kind == ValueKind::result) {
      slots_[index(update.value)] = {};
    }
  }
}

void Executor::release_results() {
  for (const ValueId id : kept_) {
    slots_[index(id)] = {};
  }
}

c10::IValue as_value(const at::Tensor& tensor, ValueType type) {
  switch (type) {
    case ValueType::integer:
      return tensor.item<int64_t>();
    case ValueType::number:
      return tensor.item<double>();
    case ValueType::boolean:
      return tensor.item<bool>();
    default:
      return tensor;
  }
}

}  // namespace shardpipe::graph
