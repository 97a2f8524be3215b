#include "frontend/trace/recorder.h"

#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include "base/error.h"
#include "frontend/trace/module_scope.h"

namespace shardpipe::trace {
namespace {

constexpr auto kKey = c10::DispatchKey::TESTING_ONLY_GenericMode;
thread_local Recorder* active = nullptr;  // NOLINT

// A zero expanded over the shape: reads like a tensor of that size and touches no memory.
at::Tensor stand_in(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_meta()) {
    return tensor;
  }
  return at::zeros({}, tensor.options().device(at::kCPU)).expand(tensor.sizes());
}

c10::IValue map_tensors(const c10::IValue& value, at::Tensor (*f)(const at::Tensor&)) {
  if (value.isTensor()) {
    return f(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      list.push_back(f(tensor));
    }
    return list;
  }
  return value;
}

at::Tensor to_meta(const at::Tensor& tensor) {
  return tensor.defined() && !tensor.is_meta()
      ? at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta))
      : tensor;
}

// Several operators have a meta kernel only in Python: they run on the CPU, on tensors that are one zero.
void call_on_meta(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base) {
  const std::vector<c10::IValue> saved(stack->begin() + static_cast<ptrdiff_t>(base), stack->end());
  try {
    op.callBoxed(stack);
    return;
  } catch (const c10::NotImplementedError&) {
    stack->resize(base);
  }
  for (const c10::IValue& value : saved) {
    stack->push_back(value.isDevice() ? c10::IValue(c10::Device(at::kCPU)) : map_tensors(value, stand_in));
  }
  op.callBoxed(stack);
  for (size_t i = base; i < stack->size(); ++i) {
    (*stack)[i] = map_tensors((*stack)[i], to_meta);
  }
}

}  // namespace

void record(const c10::OperatorHandle& op, c10::DispatchKeySet /*keys*/, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard below(kKey);
  if (active == nullptr) {
    op.callBoxed(stack);
    return;
  }
  active->call(op, stack);
}

namespace {

void register_fallback() {
  // Lives for the process: the dispatcher drops the fallback with the library.
  static const auto* const library = [] {
    auto* made = new torch::Library(torch::Library::IMPL, "_", kKey, __FILE__, __LINE__);
    made->fallback(torch::CppFunction::makeFromBoxedFunction<&record>());
    return made;
  }();
  static_cast<void>(library);
}

}  // namespace

struct Recorder::Scope::Guards {
  c10::impl::IncludeDispatchKeyGuard include{kKey};
  Recorder* previous = nullptr;
};

Recorder::Scope::Scope(Recorder& recorder) {
  register_fallback();
  guards_ = std::make_unique<Guards>();
  guards_->previous = std::exchange(active, &recorder);
}

Recorder::Scope::~Scope() {
  active = guards_->previous;
}

graph::ValueId Recorder::assign(const at::Tensor& tensor) {
  const auto id = static_cast<graph::ValueId>(tensors_.size());
  tensors_.push_back({tensor.scalar_type(), tensor.sizes().vec()});
  ids_[tensor.unsafeGetTensorImpl()] = id;
  alive_.push_back(tensor);
  return id;
}

graph::ValueId Recorder::declare(const at::Tensor& tensor) {
  return assign(tensor);
}

graph::ValueId Recorder::find(const at::Tensor& tensor) const {
  const auto found = ids_.find(tensor.unsafeGetTensorImpl());
  return found == ids_.end() ? graph::kNoValue : found->second;
}

graph::Argument Recorder::argument(const c10::IValue& value) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) {
      return graph::Argument(c10::IValue());
    }
    graph::ValueId id = find(tensor);
    if (id == graph::kNoValue) {
      if (tensor.is_meta()) {
        throw_usage(
            "a tensor of shape {} used in \"{}\" is neither an input nor a registered parameter or buffer of the model",
            fmt::format("{}", c10::str(tensor.sizes())), ModuleScope::current());
      }
      id = assign(tensor);
      constants_[id] = tensor;
    }
    return graph::Argument::value(id);
  }
  const auto list = [&](const auto& items) {
    graph::ArgumentList arguments;
    for (const auto& item : items) {
      arguments.push_back(argument(c10::IValue(item)));
    }
    return graph::Argument::list(std::move(arguments));
  };
  if (value.isTensorList()) {
    return list(value.toTensorVector());
  }
  if (value.isOptionalTensorList()) {
    return list(value.toOptionalTensorVector());
  }
  if (value.isList() && !value.isIntList() && !value.isDoubleList() && !value.isBoolList()) {
    return list(value.toListRef());
  }
  return graph::Argument(value.isSymInt() ? c10::IValue(value.toSymInt().expect_int()) : value.deepcopy());
}

void Recorder::call(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const size_t count = schema.arguments().size();
  const size_t base = stack->size() - count;
  if (schema.name() == "aten::item" || schema.name() == "aten::_local_scalar_dense") {
    throw_usage("\"{}\" reads the value of a tensor (item()), which cannot be traced", ModuleScope::current());
  }
  RecordedNode node{op, {}, {}, ModuleScope::current(), c10::GradMode::is_enabled()};
  for (size_t i = 0; i < count; ++i) {
    c10::IValue& value = (*stack)[base + i];
    const bool device = schema.arguments()[i].name() == "device";
    // The graph runs where the rank puts it; the trace itself allocates nothing.
    node.arguments.push_back(device && value.isDevice() ? graph::Argument(c10::IValue()) : argument(value));
    if (device && (value.isNone() || value.isDevice())) {
      value = c10::Device(at::kMeta);
    }
  }
  call_on_meta(op, stack, base);
  for (size_t i = base; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor() && value.toTensor().defined()) {
      node.results.push_back(assign(value.toTensor()));
    } else {
      throw_usage(
          "operator {} in \"{}\" returns a value of kind {}, which cannot be traced yet", c10::str(op.operator_name()),
          ModuleScope::current(), value.tagKind());
    }
  }
  nodes_.push_back(std::move(node));
}

}  // namespace shardpipe::trace
