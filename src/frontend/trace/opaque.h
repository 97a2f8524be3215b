#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace shardpipe::trace {

using OpaqueFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

/// Marks code of a module that cannot be traced, because it reads values or branches on them: in a trace it becomes one
/// node, which calls `f` as it is, in every run of the graph; outside of a trace this is f(inputs).
///
///   x = opaque("top_k_router", [k = k_](const auto& in) { … in[0].item() … }, {scores, router->weight})[0];
///
/// - `f` may use no tensor but its inputs: pass parameters too. It may not write to them. Autograd works through it.
/// - How many tensors it returns, and their shapes, follow from the inputs' shapes: the trace calls it on zeros.
/// - The graph holds the name and a number, the function stays in the process: each rank has to trace the same modules
///   in the same order. What `f` captures lives as long as the process.
///
/// Throws Error(usage) when `f` fails on zeros, returns an undefined tensor or writes to an input, and, where the graph
/// runs, when no function of that name and number exists.
std::vector<at::Tensor> opaque(const std::string& name, OpaqueFunction f, const std::vector<at::Tensor>& inputs);

/// Registers shardpipe::opaque(str name, int id, Tensor[] inputs) -> Tensor[], which graphs with such nodes need.
void register_opaque();

/// Numbers the opaque functions of one trace: the k-th of a name in a run is the k-th in all runs. While a Scope is
/// open on this thread, opaque() records.
class OpaqueNumbers {
 public:
  class Scope {
   public:
    explicit Scope(OpaqueNumbers& numbers);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    OpaqueNumbers* previous_;
  };

  /// The number of the next function called `name`.
  int64_t next(const std::string& name);

 private:
  std::map<std::string, int64_t> first_;
  std::map<std::string, int64_t> count_;  // in this run
};

}  // namespace shardpipe::trace
