#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <span>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::graph {

/// Runs a graph through the dispatcher: arguments laid out ahead of time, each intermediate released after its last
/// use. Autograd, autocast and every device come from LibTorch, by the caller's guards. Not thread-safe: one call at a
/// time.
///
///   Executor executor(stage);
///   executor.set(parameter_id, weight);      // kept until set again: parameters, buffers, states
///   executor.set(input_id, ids);             // likewise; inputs are usually set before each run
///   executor.run();
///   at::Tensor logits = executor.get(output_id).toTensor();
class Executor {
 public:
  /// `graph` is a verified one. `keep`: values that get() will be asked for, besides the graph's outputs.
  explicit Executor(const Graph& graph, std::span<const ValueId> keep = {});

  /// Gives a value that no node computes. Throws Error(internal) for a node's result and for an id that is none.
  void set(ValueId id, c10::IValue value);

  /// Runs all nodes, then binds each updated state to its new value, detached. Throws Error(internal) naming the node
  /// and its module when an operator throws, and the value when one was never set. Errors of Shardpipe's own operators
  /// keep their code. After an error the results are released and run() may be called again.
  void run();

  /// An output or kept value of the last run; of a state what the last run left.
  const c10::IValue& get(ValueId id) const { return slots_[static_cast<size_t>(id)]; }

  /// Drops the outputs and kept values of the last run, so that their memory can be reused.
  void release_results();

 private:
  enum class Source : uint8_t { constant, slot, last_use, number, list };
  struct Operand {
    Source source;
    int32_t index;  // into constants_, slots_ or lists_
  };
  struct List {
    c10::TypePtr element;
    std::vector<Operand> items;
  };
  struct Step {
    std::optional<c10::OperatorHandle> op;
    ScalarOperator scalar;
    bool returns_list;
    bool no_grad;
    int32_t autocast;  // into autocasts_
    int32_t branches;  // into branches_; -1: not a cond
    uint32_t num_operands;
    uint32_t num_results;
  };

  Operand operand(const Argument& argument, const c10::TypePtr& type);
  Operand list_operand(const ArgumentList& items, const c10::TypePtr& type);
  void find_last_uses(std::span<const ValueId> keep);
  void prepare();
  void push(const Operand& operand);
  c10::IValue build(const List& list);
  void call_branch(const Step& step);
  int32_t autocast_index(const std::optional<Autocast>& state);
  void store_results(const Step& step, const ValueId* results);
  [[noreturn]] void rethrow(const Step& step);

  Graph graph_;
  std::vector<c10::IValue> slots_;  // by value id
  std::vector<c10::IValue> constants_;
  std::vector<List> lists_;
  std::vector<std::pair<int32_t, List>> fixed_lists_;  // of parameters and buffers: constants once those are set
  std::vector<Step> steps_;                            // one a node
  std::vector<Operand> operands_;                      // of all steps, in order
  std::vector<ValueId> results_;                       // of all steps; kNoValue where nobody reads it
  std::vector<ValueId> kept_;                          // results that outlive the run
  std::vector<std::optional<Autocast>> autocasts_ = {std::nullopt};
  std::vector<Executor> branches_;  // two a cond: of true, of false
  torch::jit::Stack stack_;
  bool ready_ = false;
};

/// A tensor as a value of a graph: itself, or its only element for an integer, number or boolean.
c10::IValue as_value(const at::Tensor& tensor, ValueType type);

}  // namespace shardpipe::graph
