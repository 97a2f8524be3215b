#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "frontend/trace/interceptor.h"
#include "graph/graph.h"

namespace shardpipe::trace {

/// One operator call as it happened; values are numbered in the order they appeared.
struct RecordedNode {
  std::optional<c10::OperatorHandle> op = {};
  std::vector<graph::Argument> arguments = {};
  std::vector<graph::ValueId> results = {};  ///< of an operator that returns Tensor[]: its items
  std::string module = {};                   ///< the open ModuleScope's path
  std::string near = {};                     ///< owner of the last declared tensor that was used, this call included
  bool grad_enabled = true;

  /// For messages: `in "layers.3"`, or `after "layers.3"` where no ModuleScope was open.
  std::string place() const;
};

/// What is known of a value in one run; nothing beyond the type of an undefined tensor or a number.
struct RecordedValue {
  graph::ValueType type = graph::ValueType::tensor;
  std::optional<at::ScalarType> dtype = {};
  std::optional<std::vector<int64_t>> sizes = {};
};

/// Records the operators called on this thread while a Scope is open. Every call runs on `meta`: devices are redirected
/// to it, tensors of other devices replaced by their shapes.
///
/// An operator that returns numbers only (size, numel, is_floating_point) is not recorded: what it answers follows from
/// shapes. Throws Error(usage) naming operator and module when an operator fails, when it reads the values of a tensor
/// (item, nonzero, equal), and when an argument or result is of a kind that a graph cannot hold.
class Recorder : public Interceptor {
 public:
  /// Makes `tensor` known under the next id (the order of calls defines the ids) and returns the id.
  /// `owner`: path of the module it belongs to, for messages.
  graph::ValueId declare(const at::Tensor& tensor, const std::string& owner = {});
  /// The id of a tensor that was declared or recorded; kNoValue otherwise.
  graph::ValueId find(const at::Tensor& tensor) const;
  /// Also of an object that no operator returned but that shares such a tensor's memory: torch::zeros(), data().
  graph::ValueId find_or_copy(const at::Tensor& tensor);

  const std::vector<RecordedNode>& nodes() const { return nodes_; }
  /// By id.
  const std::vector<RecordedValue>& values() const { return values_; }
  /// Tensors that the program took from outside the trace: id -> content.
  const std::map<graph::ValueId, at::Tensor>& constants() const { return constants_; }

 private:
  void call(const c10::OperatorHandle& op, torch::jit::Stack* stack) override;
  std::string place() const override;
  const char* occasion() const override { return "a model is traced"; }
  std::vector<graph::ValueId> results(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> returned);
  graph::Argument argument(const c10::IValue& value);
  graph::ValueId assign(const at::Tensor& tensor);

  std::vector<RecordedNode> nodes_;
  std::vector<RecordedValue> values_;
  std::map<graph::ValueId, at::Tensor> constants_;
  std::unordered_map<const c10::TensorImpl*, graph::ValueId> ids_;
  std::unordered_map<const c10::StorageImpl*, std::vector<std::pair<graph::ValueId, at::Tensor>>> on_storage_;
  std::vector<at::Tensor> alive_;  // an address must not be reused while it is a key
  std::unordered_map<graph::ValueId, std::string> owners_;
  std::string near_;
};

}  // namespace shardpipe::trace
