#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::trace {

/// One operator call as it happened; tensors are numbered in the order they appeared.
struct RecordedNode {
  c10::OperatorHandle op;
  std::vector<graph::Argument> arguments;
  std::vector<graph::ValueId> results;
  std::string module;
  bool grad_enabled;
};

/// What is known of a tensor in one run.
struct RecordedTensor {
  at::ScalarType dtype;
  std::vector<int64_t> sizes;
};

/// Records the operators called on this thread while a Recorder::Scope is open: a boxed fallback on a dispatch key above
/// autograd sees each operator whole (linear, layer_norm, scaled_dot_product_attention), factory calls too, which it
/// sends to `meta`.
class Recorder {
 public:
  /// Makes `tensor` known under the next id (the order of calls defines the ids) and returns the id.
  graph::ValueId declare(const at::Tensor& tensor);
  /// The id of a tensor that was declared or recorded; kNoValue otherwise.
  graph::ValueId find(const at::Tensor& tensor) const;

  const std::vector<RecordedNode>& nodes() const { return nodes_; }
  /// By id.
  const std::vector<RecordedTensor>& tensors() const { return tensors_; }
  /// Tensors that the program took from outside the trace: id -> content.
  const std::unordered_map<graph::ValueId, at::Tensor>& constants() const { return constants_; }

  class Scope {
   public:
    explicit Scope(Recorder& recorder);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    struct Guards;
    std::unique_ptr<Guards> guards_;
  };

 private:
  friend void record(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack);
  void call(const c10::OperatorHandle& op, torch::jit::Stack* stack);
  graph::Argument argument(const c10::IValue& value);
  graph::ValueId assign(const at::Tensor& tensor);

  std::vector<RecordedNode> nodes_;
  std::vector<RecordedTensor> tensors_;
  std::unordered_map<graph::ValueId, at::Tensor> constants_;
  std::unordered_map<const c10::TensorImpl*, graph::ValueId> ids_;
  std::vector<at::Tensor> alive_;  // an address must not be reused while it is a key
};

}  // namespace shardpipe::trace
