#include "frontend/trace/recorder.h"

#include <c10/core/GradMode.h>

#include "base/error.h"
#include "frontend/trace/module_scope.h"
#include "graph/device.h"
#include "graph/graph.h"

namespace shardpipe::trace {
namespace {

using graph::Argument;
using graph::ValueId;
using graph::ValueType;

// Graphs name no device: each rank has its own. to.device must be given one; to.dtype_layout keeps the tensor's.
void drop_device(RecordedNode& node) {
  const auto& formals = node.op->schema().arguments();
  if (node.op->operator_name() == c10::OperatorName("aten::to", "device")) {
    const std::vector<Argument> given = std::move(node.arguments);
    const Argument none{c10::IValue()};
    node.op = graph::find_operator("aten::to.dtype_layout");
    node.arguments = {given[0], given[2], none, none, none, given[3], given[4], given[5]};
  } else if (std::any_of(formals.begin(), formals.end(), [](const c10::Argument& formal) {
               return formal.type()->kind() == c10::TypeKind::DeviceObjType;
             })) {
    throw_usage(
        "operator {} {} needs a device, which a graph does not name", c10::toString(node.op->operator_name()),
        node.place());
  }
}

}  // namespace

std::string RecordedNode::place() const {
  return module.empty() && !near.empty() ? fmt::format("after \"{}\"", near) : fmt::format("in \"{}\"", module);
}

std::string Recorder::place() const {
  return RecordedNode{.module = ModuleScope::current(), .near = near_}.place();
}

ValueId Recorder::declare(const at::Tensor& tensor, const std::string& owner) {
  const ValueId id = assign(tensor);
  if (!owner.empty()) {
    owners_[id] = owner;
  }
  return id;
}

ValueId Recorder::assign(const at::Tensor& tensor) {
  const auto id = static_cast<ValueId>(values_.size());
  values_.push_back({ValueType::tensor, tensor.scalar_type(), tensor.sizes().vec()});
  ids_[tensor.unsafeGetTensorImpl()] = id;
  if (tensor.has_storage()) {
    on_storage_[tensor.storage().unsafeGetStorageImpl()].emplace_back(id, tensor);
  }
  alive_.push_back(tensor);
  return id;
}

ValueId Recorder::find(const at::Tensor& tensor) const {
  const auto found = ids_.find(tensor.unsafeGetTensorImpl());
  return found == ids_.end() ? graph::kNoValue : found->second;
}

ValueId Recorder::find_or_copy(const at::Tensor& tensor) {
  if (const ValueId id = find(tensor); id != graph::kNoValue || !tensor.defined()) {
    return id;
  }
  const auto found =
      tensor.has_storage() ? on_storage_.find(tensor.storage().unsafeGetStorageImpl()) : on_storage_.end();
  if (found == on_storage_.end()) {
    return graph::kNoValue;
  }
  const auto same = std::find_if(found->second.rbegin(), found->second.rend(), [&](const auto& known) {
    return known.second.sizes() == tensor.sizes() && known.second.strides() == tensor.strides() &&
           known.second.storage_offset() == tensor.storage_offset() && known.second.dtype() == tensor.dtype();
  });
  if (same == found->second.rend()) {
    return graph::kNoValue;
  }
  static const c10::OperatorHandle detach = graph::find_operator("aten::detach");
  RecordedNode node{detach, {Argument::value(same->first)}, {}, ModuleScope::current(), near_, true};
  const ValueId id = assign(tensor);
  node.results = {id};
  nodes_.push_back(std::move(node));
  return id;
}

Argument Recorder::argument(const c10::IValue& value) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) {
      return Argument(c10::IValue());
    }
    ValueId id = find_or_copy(tensor);
    if (id == graph::kNoValue) {
      if (tensor.is_meta()) {
        throw_usage(
            "a tensor of shape {} used {} is neither an input nor a registered parameter or buffer of the model",
            c10::str(tensor.sizes()), place());
      }
      if (tensor.requires_grad()) {
        throw Error(
            ErrorCode::usage,
            fmt::format(
                "a tensor of shape {} used {} requires a gradient but is no registered parameter of the model",
                c10::str(tensor.sizes()), place()),
            "register it with register_parameter(), or detach it");
      }
      id = assign(tensor);
      constants_[id] = tensor;
    }
    if (const auto owner = owners_.find(id); owner != owners_.end()) {
      near_ = owner->second;
    }
    return Argument::value(id);
  }
  if (value.isNone() || value.isBool() || value.isInt() || value.isDouble() || value.isComplexDouble() ||
      value.isString() || value.isDevice()) {
    return Argument(value);
  }
  if (value.isIntList() || value.isDoubleList() || value.isBoolList()) {
    return Argument(value.deepcopy());
  }
  if (value.isList()) {
    graph::ArgumentList items;
    for (const c10::IValue& item : value.toListRef()) {
      items.push_back(argument(item));
    }
    return Argument::list(std::move(items));
  }
  throw_usage("an argument of kind {} {} cannot be traced", value.tagKind(), place());
}

void Recorder::call(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::vector<c10::Argument>& formals = op.schema().arguments();
  const size_t base = stack->size() - formals.size();
  RecordedNode node{op, {}, {}, ModuleScope::current(), {}, c10::GradMode::is_enabled()};
  for (size_t i = 0; i < formals.size(); ++i) {
    c10::IValue& value = (*stack)[base + i];
    // The graph runs where the rank puts it; the trace itself allocates nothing.
    const bool device = graph::is_device(formals[i]);
    node.arguments.push_back(device ? Argument(c10::IValue()) : argument(value));
    value = device ? c10::IValue(c10::Device(at::kMeta)) : map_tensors(value, to_meta);
  }
  node.near = near_;
  drop_device(node);
  run_on_meta(op, stack, base);
  const auto returned = c10::ArrayRef<c10::IValue>(*stack).slice(base);
  const bool numbers_only = !returned.empty() && std::none_of(returned.begin(), returned.end(), [](const auto& value) {
    return value.isTensor() || value.isTensorList();
  });
  if (numbers_only) {
    if (ran_on_cpu(op)) {
      refuse_reading(op);  // equal
    }
    return;
  }
  node.results = results(op, returned);
  nodes_.push_back(std::move(node));
}

std::vector<ValueId> Recorder::results(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> returned) {
  std::vector<ValueId> ids;
  const auto add = [&](ValueType type) {
    values_.push_back({type});
    ids.push_back(static_cast<ValueId>(values_.size() - 1));
  };
  for (const c10::IValue& value : returned) {
    if (value.isTensor()) {
      if (value.toTensor().defined()) {
        ids.push_back(assign(value.toTensor()));
      } else {
        add(ValueType::tensor);
      }
    } else if (value.isTensorList() && returned.size() == 1) {
      for (const at::Tensor& item : value.toTensorVector()) {
        ids.push_back(assign(item));
      }
    } else if (value.isInt()) {
      add(ValueType::integer);
    } else if (value.isDouble()) {
      add(ValueType::number);
    } else if (value.isBool()) {
      add(ValueType::boolean);
    } else {
      throw_usage(
          "operator {} {} returns a value of kind {}, which cannot be traced", c10::toString(op.operator_name()),
          place(), value.tagKind());
    }
  }
  return ids;
}

}  // namespace shardpipe::trace
