#include "frontend/trace/opaque.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <mutex>
#include <utility>

#include "base/error.h"
#include "frontend/trace/interceptor.h"

namespace shardpipe::trace {
namespace {

using Tensors = std::vector<at::Tensor>;

thread_local OpaqueNumbers* numbers_of_trace = nullptr;  // NOLINT

class Registry {
 public:
  static Registry& instance() {
    static auto* const registry = new Registry;
    return *registry;
  }
  int64_t count(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(functions_[name].size());
  }
  void set(const std::string& name, int64_t id, OpaqueFunction f) {
    const std::lock_guard lock(mutex_);
    auto& functions = functions_[name];
    functions.resize(std::max(functions.size(), static_cast<size_t>(id) + 1));
    functions[static_cast<size_t>(id)] = std::make_shared<OpaqueFunction>(std::move(f));
  }
  std::shared_ptr<OpaqueFunction> get(const std::string& name, int64_t id) {
    const std::lock_guard lock(mutex_);
    const auto found = functions_.find(name);
    return found == functions_.end() || static_cast<size_t>(id) >= found->second.size()
               ? nullptr
               : found->second[static_cast<size_t>(id)];
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::vector<std::shared_ptr<OpaqueFunction>>> functions_;
};

// What the function returns, as an operator that neither writes nor aliases: the graph's analyses rely on it.
Tensors call_checked(const std::string& name, const OpaqueFunction& f, const Tensors& inputs) {
  const auto version = [](const at::Tensor& tensor) { return tensor.is_inference() ? 0 : tensor._version(); };
  std::vector<int64_t> versions;
  for (const at::Tensor& input : inputs) {
    versions.push_back(version(input));
  }
  Tensors results = f(inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (version(inputs[i]) != versions[i]) {
      throw_usage("opaque function \"{}\" writes to its input {}; it has to return a new tensor", name, i);
    }
  }
  for (at::Tensor& result : results) {
    if (!result.defined()) {
      throw_usage("opaque function \"{}\" returns an undefined tensor", name);
    }
    if (std::any_of(inputs.begin(), inputs.end(), [&](const auto& input) { return result.is_alias_of(input); })) {
      result = result.clone();
    }
  }
  return results;
}

Tensors call_on_zeros(const std::string& name, const OpaqueFunction& f, const at::TensorList inputs) {
  // The function's operators are its own business: nobody records them or refuses to read values.
  const c10::impl::ExcludeDispatchKeyGuard unseen(c10::DispatchKey::TESTING_ONLY_GenericMode);
  const at::NoGradGuard no_grad;
  Tensors zeros;
  for (const at::Tensor& input : inputs) {
    zeros.push_back(at::zeros(input.sizes(), input.options().device(at::kCPU)));
  }
  Tensors results;
  try {
    results = call_checked(name, f, zeros);
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw Error(
        ErrorCode::usage,
        fmt::format(
            "opaque function \"{}\" failed on zeros, on which it is called while a model is traced: {}", name,
            current_error().message()),
        "it may use no tensor but its inputs, and has to accept any values");
  }
  for (at::Tensor& result : results) {
    result = to_meta(result);
  }
  return results;
}

Tensors call_opaque(std::string_view view, int64_t id, const at::TensorList inputs) {
  const std::string name(view);
  const std::shared_ptr<OpaqueFunction> f = Registry::instance().get(name, id);
  if (f == nullptr) {
    throw Error(
        ErrorCode::usage, fmt::format("there is no opaque function \"{}\" number {} in this process", name, id),
        "every rank has to trace the same modules in the same order");
  }
  const bool traced = std::any_of(inputs.begin(), inputs.end(), [](const auto& input) { return input.is_meta(); });
  return traced ? call_on_zeros(name, *f, inputs) : call_checked(name, *f, inputs.vec());
}

}  // namespace

void register_opaque() {
  static const auto* const library = [] {
    auto* made = new torch::Library(torch::Library::FRAGMENT, "shardpipe", std::nullopt, __FILE__, __LINE__);
    made->def("opaque(str name, int id, Tensor[] inputs) -> Tensor[]");
    // Autograd sees the function's own operators.
    made->impl("opaque", torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(call_opaque)));
    return made;
  }();
  static_cast<void>(library);
}

Tensors opaque(const std::string& name, OpaqueFunction f, const Tensors& inputs) {
  if (numbers_of_trace == nullptr) {
    return call_checked(name, f, inputs);
  }
  register_opaque();
  const int64_t id = numbers_of_trace->next(name);
  Registry::instance().set(name, id, std::move(f));
  static const c10::OperatorHandle op = c10::Dispatcher::singleton().findSchemaOrThrow("shardpipe::opaque", "");
  torch::jit::Stack stack = {name, id, inputs};
  op.callBoxed(&stack);
  return stack.back().toTensorVector();
}

OpaqueNumbers::Scope::Scope(OpaqueNumbers& numbers) : previous_(std::exchange(numbers_of_trace, &numbers)) {
  numbers.count_.clear();
}

OpaqueNumbers::Scope::~Scope() {
  numbers_of_trace = previous_;
}

int64_t OpaqueNumbers::next(const std::string& name) {
  const auto [first, added] = first_.try_emplace(name, 0);
  if (added) {
    first->second = Registry::instance().count(name);
  }
  return first->second + count_[name]++;
}

}  // namespace shardpipe::trace
