#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace shardpipe::kernels {

/// The autograd kernel of operators that have no gradient formula: throws Error(usage) naming the operator when
/// GradMode is on and a tensor input (also in a list or optional) requires grad, else goes on below autograd.
void refuse_gradient(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);

}  // namespace shardpipe::kernels
