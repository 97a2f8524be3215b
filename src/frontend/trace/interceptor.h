#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <memory>
#include <string>
#include <unordered_set>

namespace shardpipe::trace {

/// Sees each operator called on this thread while a Scope is open: a boxed fallback on a dispatch key above autograd
/// gets operators whole (linear, layer_norm, scaled_dot_product_attention), factory calls too. What an operator calls
/// itself is not seen.
///
/// Throws Error(usage) naming operator and place when one reads the values of a tensor (item, nonzero, equal); `equal`
/// of a tensor with itself is true.
class Interceptor {
 public:
  class Scope {
   public:
    explicit Scope(Interceptor& interceptor);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    struct Guards;
    std::unique_ptr<Guards> guards_;
  };

 protected:
  Interceptor() = default;
  ~Interceptor() = default;

  /// The call of `op`, its arguments on the stack: leaves its results there.
  virtual void call(const c10::OperatorHandle& op, torch::jit::Stack* stack) = 0;
  /// For messages: `in "layers.3"`, and `a model is traced`.
  virtual std::string place() const = 0;
  virtual const char* occasion() const = 0;

  /// Calls `op` on the stack's `meta` tensors. Without a kernel for `meta` it runs on CPU tensors that are one zero
  /// expanded to the shape (an argument that is written to: real zeros), and the shapes of its results are kept.
  void run_on_meta(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base);
  /// Operators that answered a number on CPU stand-ins read values: this refuses those.
  bool ran_on_cpu(const c10::OperatorHandle& op) const { return without_meta_.count(op.operator_name()) > 0; }
  [[noreturn]] void refuse_reading(const c10::OperatorHandle& op) const;

 private:
  friend void intercept(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);
  void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base);

  std::unordered_set<c10::OperatorName> without_meta_;
  bool inside_ = false;  // of an intercepted operator
};

/// The value with `f` applied to its tensors, those of a list included.
c10::IValue map_tensors(const c10::IValue& value, const std::function<at::Tensor(const at::Tensor&)>& f);
/// A `meta` tensor of the same shape, strides and dtype; `tensor` itself where it is undefined or on `meta`.
at::Tensor to_meta(const at::Tensor& tensor);
/// Whether the schema says that the operator writes to this argument.
bool is_written(const c10::Argument& formal);

}  // namespace shardpipe::trace
