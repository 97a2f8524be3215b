#include "kernels/grad_guard.h"

#include <c10/core/GradMode.h>

#include "base/error.h"

namespace shardpipe::kernels {
namespace {

bool requires_grad(const c10::IValue& value) {
  if (value.isTensor()) {
    return value.toTensor().defined() && value.toTensor().requires_grad();
  }
  if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorList()) {
      if (tensor.defined() && tensor.requires_grad()) {
        return true;
      }
    }
    return false;
  }
  if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      if (requires_grad(element)) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace

void refuse_gradient(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  if (c10::GradMode::is_enabled()) {
    const auto& arguments = op.schema().arguments();
    const size_t first = stack->size() - arguments.size();
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (requires_grad((*stack)[first + i])) {
        throw Error(
            ErrorCode::usage,
            fmt::format(
                "{} has no gradient, but its argument '{}' requires grad", op.schema().name(), arguments[i].name()),
            "run it under no_grad or inference mode, or use --kernels reference");
      }
    }
  }
  op.redispatchBoxed(keys & c10::after_autograd_keyset, stack);
}

}  // namespace shardpipe::kernels
