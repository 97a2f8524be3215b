#include "frontend/trace/interceptor.h"

#include <ATen/core/enum_tag.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <malloc.h>
#include <torch/library.h>

#include <unordered_set>

#include "base/error.h"

namespace shardpipe::trace {
namespace {

// Freed results on the CPU above this size are given back: small tensors made in between would pin the heap.
constexpr size_t kLargeResultBytes = size_t{1} << 20;
constexpr auto kKey = c10::DispatchKey::TESTING_ONLY_GenericMode;
thread_local Interceptor* active = nullptr;  // NOLINT

thread_local bool on_stand_ins = false;  // NOLINT

// Operators that had no kernel for meta, by any interceptor of the thread: each discovery costs an exception.
std::unordered_set<c10::OperatorName>& found_without_meta() {
  thread_local std::unordered_set<c10::OperatorName> names;
  return names;
}

// Reads like a tensor of that shape: a zero expanded over it, which touches no memory.
at::Tensor stand_in(const at::Tensor& tensor) {
  return tensor.defined() ? at::zeros({}, tensor.options().device(at::kCPU)).expand(tensor.sizes()) : tensor;
}

at::Tensor writable_stand_in(const at::Tensor& tensor) {
  return tensor.defined() ? at::zeros(tensor.sizes(), tensor.options().device(at::kCPU)) : tensor;
}

// Its answer or the shape of its answer depends on the values of a tensor. index and one_hot carry the tag for what
// they only do with some arguments, by calling others that carry it.
bool reads_values(const c10::OperatorHandle& op) {
  const std::string& name = op.operator_name().name;
  return op.hasTag(at::Tag::data_dependent_output) ||
         (op.hasTag(at::Tag::dynamic_output_shape) && name != "aten::index" && name != "aten::one_hot");
}

// torch::nn's attention asks so whether it attends to itself.
bool answer_equal(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  if (op.operator_name().name != "aten::equal" || !op.operator_name().overload_name.empty()) {
    return false;
  }
  const at::Tensor& a = (*stack)[stack->size() - 2].toTensor();
  const at::Tensor& b = (*stack)[stack->size() - 1].toTensor();
  const bool same = a.is_same(b);
  if (!same && a.sizes() == b.sizes()) {
    return false;
  }
  torch::jit::drop(*stack, 2);
  torch::jit::push(*stack, same);
  return true;
}

struct Inside {
  explicit Inside(bool& flag) : flag_(flag) { flag_ = true; }
  ~Inside() { flag_ = false; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  bool& flag_;
};

}  // namespace

c10::IValue map_tensors(const c10::IValue& value, const std::function<at::Tensor(const at::Tensor&)>& f) {
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

bool is_written(const c10::Argument& formal) {
  return formal.alias_info() != nullptr && formal.alias_info()->isWrite();
}

void intercept(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  if (active != nullptr && !active->inside_ && answer_equal(op, stack)) {
    return;
  }
  // A kernel for the CPU may keep its own scalars in tensors (rrelu).
  const std::string& name = op.operator_name().name;
  const bool own_scalar = on_stand_ins && (name == "aten::item" || name == "aten::_local_scalar_dense");
  if (active != nullptr && reads_values(op) && !own_scalar) {
    active->refuse_reading(op);
  }
  if (active != nullptr && !active->inside_) {
    const Inside inside(active->inside_);
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
    made->fallback(torch::CppFunction::makeFromBoxedFunction<&intercept>());
    return made;
  }();
  static_cast<void>(library);
}

}  // namespace

struct Interceptor::Scope::Guards {
  c10::impl::IncludeDispatchKeyGuard include{kKey};
  Interceptor* previous = nullptr;
};

Interceptor::Scope::Scope(Interceptor& interceptor) {
  register_fallback();
  guards_ = std::make_unique<Guards>();
  guards_->previous = std::exchange(active, &interceptor);
  interceptor.without_meta_ = found_without_meta();
}

Interceptor::Scope::~Scope() {
  active = guards_->previous;
}

void Interceptor::refuse_reading(const c10::OperatorHandle& op) const {
  throw Error(
      ErrorCode::usage,
      fmt::format(
          "operator {} {} reads the values of a tensor, which have none while {}", c10::toString(op.operator_name()),
          place(), occasion()),
      "compute with tensors, or make the value an input");
}

void Interceptor::run_on_meta(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base) {
  try {
    if (!ran_on_cpu(op)) {
      const std::vector<c10::IValue> saved(stack->begin() + static_cast<ptrdiff_t>(base), stack->end());
      try {
        op.callBoxed(stack);
        return;
      } catch (const c10::NotImplementedError&) {
        without_meta_.insert(op.operator_name());
        found_without_meta().insert(op.operator_name());
        stack->resize(base);
        stack->insert(stack->end(), saved.begin(), saved.end());
      }
    }
    run_on_cpu(op, stack, base);
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw_usage(
        "operator {} {} failed while {}: {}", c10::toString(op.operator_name()), place(), occasion(),
        current_error().message());
  }
}

// Several operators have a meta kernel only in Python (embedding, layer_norm, scaled_dot_product_attention).
void Interceptor::run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base) {
  const c10::FunctionSchema& schema = op.schema();
  const std::vector<c10::IValue> saved(stack->begin() + static_cast<ptrdiff_t>(base), stack->end());
  for (size_t i = 0; i < saved.size(); ++i) {
    // Some normalisations update running statistics that their schemas do not mark.
    const c10::Argument& formal = schema.arguments()[i];
    const bool written = is_written(formal) || formal.name().starts_with("running_");
    (*stack)[base + i] = saved[i].isDevice() ? c10::IValue(c10::Device(at::kCPU))
                                             : map_tensors(saved[i], written ? writable_stand_in : stand_in);
  }
  {
    const Inside standing_in(on_stand_ins);
    op.callBoxed(stack);
  }
  size_t result_bytes = 0;
  for (size_t r = 0; r < schema.returns().size(); ++r) {
    c10::IValue& value = (*stack)[base + r];
    value = map_tensors(value, [&](const at::Tensor& tensor) {
      result_bytes += tensor.defined() ? tensor.nbytes() : 0;
      return to_meta(tensor);
    });
    const c10::AliasInfo* result = schema.returns()[r].alias_info();
    for (size_t a = 0; result != nullptr && result->isWrite() && a < saved.size(); ++a) {
      const c10::AliasInfo* written = schema.arguments()[a].alias_info();
      if (written != nullptr && written->beforeSets() == result->beforeSets()) {
        value = saved[a];  // an operator that works in place returns its argument
      }
    }
  }
  if (result_bytes > kLargeResultBytes) {
    malloc_trim(0);
  }
}

}  // namespace shardpipe::trace
