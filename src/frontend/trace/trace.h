#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::trace {

/// A tensor that the program names: its extents may hold named dimensions.
struct TensorSpec {
  std::string name;
  at::ScalarType dtype;
  graph::Shape shape;
};

/// A weight or constant of the module. `tensor` is on `meta` for everything the checkpoint holds; what no file holds
/// comes with its content. Tensors that are one object (tied weights) become one parameter.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
  graph::ValueKind kind = graph::ValueKind::parameter;
};

using NamedOutputs = std::vector<std::pair<std::string, at::Tensor>>;

/// What to trace.
struct Program {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> states;  ///< per-sequence tensors that forward() mutates
  std::vector<NamedTensor> tensors;
  /// Runs the module once on `meta` tensors, inputs and states in the order of their specs.
  std::function<NamedOutputs(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& states)> forward;
};

/// Records every operator that forward() calls, before decomposition, and returns the verified graph.
///
/// Sizes: C++ code reads sizes as plain integers, so the program runs with several distinct sizes for each named
/// dimension; an integer argument that differs between the runs becomes a polynomial of the dimensions, computed by
/// nodes, and is verified on one more run (fit.h). A result whose extents are no polynomial has no shape in the graph.
///
/// Nodes name no device. Throws Error(usage) naming the module path when control flow depends on the sizes, when an
/// integer fits no polynomial, when forward() reads a tensor's value, fails, or writes to what is no state.
graph::Graph trace(const Program& program);

}  // namespace shardpipe::trace
