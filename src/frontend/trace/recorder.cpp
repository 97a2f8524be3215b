#include "frontend/trace/recorder.h"

#include <ATen/core/enum_tag.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <malloc.h>
#include <torch/library.h>

#include "base/error.h"
#include "frontend/trace/module_scope.h"
#include "graph/graph.h"

namespace shardpipe::trace {
namespace {

using graph::Argument;
using graph::ValueId;
using graph::ValueType;

// Freed results on the CPU above this size are given back: small tensors made in between would pin the heap.
constexpr size_t kLargeResultBytes = size_t{1} << 20;
constexpr auto kKey = c10::DispatchKey::TESTING_ONLY_GenericMode;
thread_local Recorder* active = nullptr;  // NOLINT

template <typename F>
c10::IValue map_tensors(const c10::IValue& value, F f) {
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
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
      list.push_back(tensor ? std::optional<at::Tensor>(f(*tensor)) : std::nullopt);
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

// Reads like a tensor of that shape: a zero expanded over it, which touches no memory.
at::Tensor stand_in(const at::Tensor& tensor) {
  return tensor.defined() ? at::zeros({}, tensor.options().device(at::kCPU)).expand(tensor.sizes()) : tensor;
}

at::Tensor writable_stand_in(const at::Tensor& tensor) {
  return tensor.defined() ? at::zeros(tensor.sizes(), tensor.options().device(at::kCPU)) : tensor;
}

bool is_written(const c10::Argument& formal) {
  return formal.alias_info() != nullptr && formal.alias_info()->isWrite();
}

// Its answer or the shape of its answer depends on the values of a tensor. index and one_hot carry the tag for what
// they only do with some arguments, by calling others that carry it.
bool reads_values(const c10::OperatorHandle& op) {
  const std::string& name = op.operator_name().name;
  return op.hasTag(at::Tag::data_dependent_output) ||
         (op.hasTag(at::Tag::dynamic_output_shape) && name != "aten::index" && name != "aten::one_hot");
}

[[noreturn]] void refuse_reading(const c10::OperatorHandle& op) {
  throw Error(
      ErrorCode::usage,
      fmt::format(
          "operator {} in \"{}\" reads the values of a tensor, which have none while a model is traced",
          c10::toString(op.operator_name()), ModuleScope::current()),
      "compute with tensors, or make the value an input");
}

// Graphs name no device: each rank has its own. to.device must be given one; to.dtype_layout keeps the tensor's.
void drop_device(RecordedNode& node) {
  const auto& formals = node.op.schema().arguments();
  if (node.op.operator_name() == c10::OperatorName("aten::to", "device")) {
    const std::vector<Argument> given = std::move(node.arguments);
    const Argument none{c10::IValue()};
    node.op = graph::find_operator("aten::to.dtype_layout");
    node.arguments = {given[0], given[2], none, none, none, given[3], given[4], given[5]};
  } else if (std::any_of(formals.begin(), formals.end(), [](const c10::Argument& formal) {
               return formal.type()->kind() == c10::TypeKind::DeviceObjType;
             })) {
    throw_usage(
        "operator {} in \"{}\" needs a device, which a graph does not name", c10::toString(node.op.operator_name()),
        node.module);
  }
}

struct Inside {
  explicit Inside(bool& flag) : flag_(flag) { flag_ = true; }
  ~Inside() { flag_ = false; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  bool& flag_;
};

}  // namespace

void record(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  if (active != nullptr && reads_values(op)) {
    refuse_reading(op);
  }
  if (active != nullptr && !active->inside_) {
    active->call(op, stack);
  } else {
    op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kKey), stack);
  }
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

ValueId Recorder::assign(const at::Tensor& tensor) {
  const auto id = static_cast<ValueId>(values_.size());
  values_.push_back({ValueType::tensor, tensor.scalar_type(), tensor.sizes().vec()});
  ids_[tensor.unsafeGetTensorImpl()] = id;
  alive_.push_back(tensor);
  return id;
}

ValueId Recorder::find(const at::Tensor& tensor) const {
  const auto found = ids_.find(tensor.unsafeGetTensorImpl());
  return found == ids_.end() ? graph::kNoValue : found->second;
}

Argument Recorder::argument(const c10::IValue& value) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) {
      return Argument(c10::IValue());
    }
    ValueId id = find(tensor);
    if (id == graph::kNoValue) {
      if (tensor.is_meta()) {
        throw_usage(
            "a tensor of shape {} used in \"{}\" is neither an input nor a registered parameter or buffer of the model",
            c10::str(tensor.sizes()), ModuleScope::current());
      }
      id = assign(tensor);
      constants_[id] = tensor;
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
  throw_usage("an argument of kind {} in \"{}\" cannot be traced", value.tagKind(), ModuleScope::current());
}

void Recorder::call(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const Inside inside(inside_);
  const std::vector<c10::Argument>& formals = op.schema().arguments();
  const size_t base = stack->size() - formals.size();
  RecordedNode node{op, {}, {}, ModuleScope::current(), c10::GradMode::is_enabled()};
  for (size_t i = 0; i < formals.size(); ++i) {
    c10::IValue& value = (*stack)[base + i];
    // The graph runs where the rank puts it; the trace itself allocates nothing.
    const bool device = formals[i].type()->isSubtypeOf(*c10::OptionalType::create(c10::DeviceObjType::get()));
    node.arguments.push_back(device ? Argument(c10::IValue()) : argument(value));
    value = device ? c10::IValue(c10::Device(at::kMeta)) : map_tensors(value, to_meta);
  }
  drop_device(node);
  run(op, stack, base);
  const auto returned = c10::ArrayRef<c10::IValue>(*stack).slice(base);
  const bool numbers_only = !returned.empty() && std::none_of(returned.begin(), returned.end(), [](const auto& value) {
    return value.isTensor() || value.isTensorList();
  });
  if (numbers_only) {
    if (without_meta_.count(op.operator_name()) > 0) {
      refuse_reading(op);  // equal
    }
    return;
  }
  node.results = results(op, returned);
  nodes_.push_back(std::move(node));
}

void Recorder::run(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base) {
  try {
    if (without_meta_.count(op.operator_name()) == 0) {
      const std::vector<c10::IValue> saved(stack->begin() + static_cast<ptrdiff_t>(base), stack->end());
      try {
        op.callBoxed(stack);
        return;
      } catch (const c10::NotImplementedError&) {
        without_meta_.insert(op.operator_name());
        stack->resize(base);
        stack->insert(stack->end(), saved.begin(), saved.end());
      }
    }
    run_on_cpu(op, stack, base);
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw_usage(
        "operator {} in \"{}\" failed while the model was traced: {}", c10::toString(op.operator_name()),
        ModuleScope::current(), current_error().message());
  }
}

// Several operators have a meta kernel only in Python (embedding, layer_norm, scaled_dot_product_attention).
void Recorder::run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base) {
  const c10::FunctionSchema& schema = op.schema();
  const std::vector<c10::IValue> saved(stack->begin() + static_cast<ptrdiff_t>(base), stack->end());
  for (size_t i = 0; i < saved.size(); ++i) {
    (*stack)[base + i] = saved[i].isDevice()
                             ? c10::IValue(c10::Device(at::kCPU))
                             : map_tensors(saved[i], is_written(schema.arguments()[i]) ? writable_stand_in : stand_in);
  }
  op.callBoxed(stack);
  size_t result_bytes = 0;
  for (size_t r = 0; r < schema.returns().size(); ++r) {
    c10::IValue& value = (*stack)[base + r];
    value = map_tensors(value, [&](const at::Tensor& tensor) {
      result_bytes += tensor.defined() ? tensor.nbytes() : 0;
      return to_meta(tensor);
    });
    for (size_t a = 0; is_written(schema.returns()[r]) && a < saved.size(); ++a) {
      const c10::AliasInfo* written = schema.arguments()[a].alias_info();
      if (written != nullptr && written->beforeSets() == schema.returns()[r].alias_info()->beforeSets()) {
        value = saved[a];  // an operator that works in place returns its argument
      }
    }
  }
  if (result_bytes > kLargeResultBytes) {
    malloc_trim(0);
  }
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
          "operator {} in \"{}\" returns a value of kind {}, which cannot be traced", c10::toString(op.operator_name()),
          ModuleScope::current(), value.tagKind());
    }
  }
  return ids;
}

}  // namespace shardpipe::trace
