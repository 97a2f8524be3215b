#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "frontend/trace/deferred.h"
#include "frontend/trace/trace.h"

namespace shardpipe::trace {

/// How a module is called: its inputs, whose extents may hold named dimensions, and its forward on them.
struct ModuleSignature {
  std::vector<TensorSpec> inputs;
  /// Tensors in the order of `inputs`; outputs by name.
  std::function<NamedOutputs(torch::nn::Module& module, const std::vector<at::Tensor>& inputs)> forward;
};

/// The content of a parameter, buffer or state of the graph, by name, on the CPU.
using TensorSource = std::function<at::Tensor(const std::string& name)>;

struct TracedModule {
  graph::Graph graph;  ///< without the content of the module's tensors
  TensorSource tensors;
};

/// The graph of one forward of a module, in the mode (train or eval) that it is in. The module itself does not change.
///
/// - Parameters and buffers have their C++ names (named_parameters(), named_buffers()); several names of one tensor
///   object are one value with tied names. Buffers that the forward writes to (running statistics, counters) are
///   shared states; `tensors` gives their initial content.
/// - Graph::modules has the class of each submodule: the C++ class without namespaces and without "Impl". Nodes outside
///   of a ModuleScope get the path of the module whose parameters they use, others one from their neighbours
///   (module_paths.h).
/// - Linear layers are aten::linear (canonical.h); dropout and normalisations are recorded whole.
///
/// `tensors` of a module on real memory are its own tensors: they share memory with it. A module on `meta` needs an
/// `initialise` below. Throws Error(usage) as trace(), and when an input is named like a tensor.
TracedModule trace_module(const std::shared_ptr<torch::nn::Module>& module, const ModuleSignature& signature);

/// Fills one tensor of a module, given uninitialised, by name. LibTorch's default generator is seeded for that name.
using Initialiser = std::function<void(const std::string& name, at::Tensor& tensor)>;

/// For a module on `meta` whose content comes from `initialise`, with generators keyed by `seed` and name. A tensor
/// that is not on `meta` keeps its content. Names of tied tensors: the first.
TracedModule trace_module(
    const std::shared_ptr<torch::nn::Module>& module,
    const ModuleSignature& signature,
    Initialiser initialise,
    uint64_t seed);

/// For a module that was built without memory: `tensors` replays the initialisation of the tensor asked for.
TracedModule trace_module(const DeferredModule& module, const ModuleSignature& signature, uint64_t seed);

}  // namespace shardpipe::trace
