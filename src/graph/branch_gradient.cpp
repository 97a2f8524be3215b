#include "graph/branch_gradient.h"

#include <torch/csrc/autograd/custom_function.h>

namespace shardpipe::graph {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// As they are; autograd makes zeros of the gradients that do not come.
struct Operands : torch::autograd::Function<Operands> {
  static variable_list forward(AutogradContext* /*context*/, at::TensorList operands) {
    variable_list same;
    for (const at::Tensor& operand : operands) {
      same.push_back(operand.detach());
    }
    return same;
  }
  static variable_list backward(AutogradContext* /*context*/, variable_list gradients) { return gradients; }
};

// As they are, but the last one, which only ties the results to the operands: it has no gradient of its own.
struct Results : torch::autograd::Function<Results> {
  static variable_list forward(AutogradContext* /*context*/, at::TensorList results) {
    variable_list same;
    for (size_t i = 0; i + 1 < results.size(); ++i) {
      same.push_back(results[i].detach());
    }
    return same;
  }
  static variable_list backward(AutogradContext* /*context*/, variable_list gradients) {
    gradients.emplace_back();
    return gradients;
  }
};

// Applies a function to the tensors that `pointers` point to.
template <typename F>
variable_list apply(const std::vector<at::Tensor*>& pointers, const at::Tensor& last = {}) {
  variable_list tensors;
  for (const at::Tensor* tensor : pointers) {
    tensors.push_back(*tensor);
  }
  if (last.defined()) {
    tensors.push_back(last);
  }
  variable_list results = F::apply(at::TensorList(tensors));
  for (size_t i = 0; i < pointers.size(); ++i) {
    *pointers[i] = results[i];
  }
  return results;
}

}  // namespace

BranchGradient::BranchGradient(const std::vector<at::Tensor*>& operands) {
  std::vector<at::Tensor*> differentiable;
  for (at::Tensor* operand : operands) {
    if (operand->defined() && operand->requires_grad()) {
      differentiable.push_back(operand);
    }
  }
  if (!differentiable.empty() && c10::GradMode::is_enabled()) {
    witness_ = apply<Operands>(differentiable).front();
  }
}

void BranchGradient::finish(const std::vector<at::Tensor*>& results) const {
  std::vector<at::Tensor*> differentiable;
  for (at::Tensor* result : results) {
    if (result->defined() && torch::autograd::isDifferentiableType(result->scalar_type())) {
      differentiable.push_back(result);
    }
  }
  if (!differentiable.empty() && witness_.defined()) {
    apply<Results>(differentiable, witness_);
  }
}

}  // namespace shardpipe::graph
