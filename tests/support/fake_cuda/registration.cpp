// Gives every operator of LibTorch a kernel for CUDA.
#include <torch/library.h>

#include <algorithm>
#include <set>
#include <string>

#include "call.h"

namespace shardpipe::fake_cuda {

namespace {

// Kernels that serve any device through operators that do depend on it: they stay as they are.
const std::set<std::string>& device_neutral() {
  static const std::set<std::string> names{"aten::_to_copy", "aten::is_pinned", "aten::_pin_memory"};
  return names;
}

// Draws numbers, and would do so from the generator of the CPU, if it were called there as a whole.
bool hides_generator(const c10::OperatorHandle& op) {
  const auto& arguments = op.schema().arguments();
  return op.hasTag(at::Tag::nondeterministic_seeded) &&
         std::none_of(arguments.begin(), arguments.end(), [](const auto& each) { return each.name() == "generator"; });
}

// Views are made without touching the memory.
bool is_view(const c10::FunctionSchema& schema) {
  for (const c10::Argument& result : schema.returns()) {
    if (result.alias_info() != nullptr && !result.alias_info()->isWrite()) {
      return true;
    }
  }
  return false;
}

// The dispatcher prefers these kernels to a fallback.
bool bypasses_fallback(const c10::OperatorHandle& op) {
  return op.hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd) ||
         op.hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional) ||
         (op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) &&
          op.hasKernelForDispatchKey(c10::DispatchKey::CPU));
}

// Operators with a kernel for all devices, whose code asks for tables of functions by device, get ours by name. Only
// what LibTorch has itself: at load time no other library has registered operators yet, and kernels for all devices
// of other libraries get device tensors as they are.
torch::Library register_by_name() {
  torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findOp(name);
    if (!op || !op->hasSchema() || name.getNamespace() != "aten" || device_neutral().contains(name.name) ||
        is_view(op->schema()) || hides_generator(*op)) {
      continue;
    }
    if (bypasses_fallback(*op) && !op->hasKernelForDispatchKey(c10::DispatchKey::CUDA)) {
      const std::string full = name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
      library.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&call_on_host>());
    }
  }
  return library;
}

// Kept to the end of the process: nothing is gained by taking over a thousand kernels back.
[[maybe_unused]] const auto* const kByName = new torch::Library(register_by_name());

}  // namespace

}  // namespace shardpipe::fake_cuda

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&shardpipe::fake_cuda::call_on_host>());
}
