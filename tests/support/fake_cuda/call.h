// Runs an operator of device tensors on the CPU: what a kernel of CUDA is to PyTorch.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace shardpipe::fake_cuda {

// Boxed kernel of every operator: checks that the tensors lie on one device, calls the operator with tensors of the
// CPU over the same memory, and turns its results back. No data is copied. Refuses operators of the CPU alone.
void call_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// The same for any operator.
void call_any_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace shardpipe::fake_cuda
