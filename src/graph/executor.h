#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <span>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::graph {

/// Runs a graph through the dispatcher: arguments laid out ahead of time, each intermediate released after its last use.
/// Autograd, autocast and every device come from LibTorch, by the caller's guards. Not thread-safe: one call at a time.
///
///   Executor executor(stage);
///   executor.set(parameter_id, weight);      // kept until set again: parameters, buffers, states
///   executor.set(input_id, ids);             // likewise; inputs are usually set before each run
///   executor.run();
///   at::Tensor logits = executor.get(output_id).toTensor();
class Executor {
 public:
  /// `keep`: values that get() will be asked for, besides the graph's outputs.
  explicit Executor(const Graph& graph, std::span<const ValueId> keep = {});

  /// Gives a value that no node computes. Throws Error(internal) for a node's result.
  void set(ValueId id, c10::IValue value);

  /// Runs all nodes. Throws Error(internal) naming the node and its module when an operator throws, and the value when
  /// one was never set. Errors of Shardpipe's own operators keep their code.
  void run();

  /// An output or kept value of the last run.
  const c10::IValue& get(ValueId id) const { return slots_[static_cast<size_t>(id)]; }

  /// Drops the outputs and kept values of the last run, so that their memory can be reused.
  void release_results();

 private:
  enum class Source : uint8_t { constant, slot, last_use, list };
  struct Operand {
    Source source;
    int32_t index;  // into constants_, slots_ or lists_
  };
  struct List {
    c10::TypePtr element;
    std::vector<Operand> items;
    bool fixed;  // of named tensors only: built once after they are set
    c10::IValue built;
  };
  struct Step {
    std::optional<c10::OperatorHandle> op;
    ScalarOperator scalar;
    uint32_t first_operand;
    uint32_t num_operands;
    uint32_t first_result;
    uint32_t num_results;
    const Node* node;
  };

  Operand operand(const Argument& argument, const c10::TypePtr& type, size_t step, const std::vector<size_t>& last_use);
  void push(const Operand& operand);
  c10::IValue build(List& list);
  void call_scalar(const Step& step);
  [[noreturn]] void rethrow(const Step& step);
  void check_set() const;

  Graph graph_;
  std::vector<c10::IValue> constants_;
  std::vector<c10::IValue> slots_;
  std::vector<List> lists_;
  std::vector<Operand> operands_;
  std::vector<ValueId> results_;  // kNoValue where nobody reads it
  std::vector<Step> steps_;
  std::vector<ValueId> kept_;
  torch::jit::Stack stack_;
  bool checked_ = false;
};

}  // namespace shardpipe::graph
