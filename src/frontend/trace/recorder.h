#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::trace {

/// One operator call as it happened; values are numbered in the order they appeared.
struct RecordedNode {
  c10::OperatorHandle op;
  std::vector<graph::Argument> arguments;
  std::vector<graph::ValueId> results;  ///< of an operator that returns Tensor[]: its items
  std::string module;
  bool grad_enabled;
};

/// What is known of a value in one run; nothing beyond the type of an undefined tensor or a number.
struct RecordedValue {
  graph::ValueType type = graph::ValueType::tensor;
  std::optional<at::ScalarType> dtype = {};
  std::optional<std::vector<int64_t>> sizes = {};
};

/// Records the operators called on this thread while a Recorder::Scope is open: a boxed fallback on a dispatch key
/// above autograd sees each operator whole (linear, layer_norm, scaled_dot_product_attention), factory calls too. Every
/// call runs on `meta`: devices are redirected to it, tensors of other devices replaced by their shapes.
///
/// An operator that returns numbers only (size, numel, is_floating_point) is not recorded: what it answers follows from
/// shapes. Throws Error(usage) naming operator and module when an operator fails, when it reads the values of a tensor
/// (item, nonzero, equal), and when an argument or result is of a kind that a graph cannot hold.
class Recorder {
 public:
  /// Makes `tensor` known under the next id (the order of calls defines the ids) and returns the id.
  graph::ValueId declare(const at::Tensor& tensor) { return assign(tensor); }
  /// The id of a tensor that was declared or recorded; kNoValue otherwise.
  graph::ValueId find(const at::Tensor& tensor) const;

  const std::vector<RecordedNode>& nodes() const { return nodes_; }
  /// By id.
  const std::vector<RecordedValue>& values() const { return values_; }
  /// Tensors that the program took from outside the trace: id -> content.
  const std::map<graph::ValueId, at::Tensor>& constants() const { return constants_; }

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
  friend void record(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);
  void call(const c10::OperatorHandle& op, torch::jit::Stack* stack);
  /// Calls `op`, on the CPU when it has no kernel for `meta`.
  void run(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base);
  void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t base);
  std::vector<graph::ValueId> results(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> returned);
  graph::Argument argument(const c10::IValue& value);
  graph::ValueId assign(const at::Tensor& tensor);

  std::vector<RecordedNode> nodes_;
  std::vector<RecordedValue> values_;
  std::map<graph::ValueId, at::Tensor> constants_;
  std::unordered_map<const c10::TensorImpl*, graph::ValueId> ids_;
  std::vector<at::Tensor> alive_;  // an address must not be reused while it is a key
  std::unordered_set<c10::OperatorName> without_meta_;
  bool inside_ = false;  // of a recorded operator: what it calls is not recorded
};

}  // namespace shardpipe::trace
