#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>

#include "frontend/pt2/exported.h"
#include "graph/executor.h"

namespace shardpipe::test {

/// What export_models.py filled: the argument of the program.
inline std::filesystem::path reference_folder;

using Tensors = std::map<std::string, at::Tensor>;

/// What a run left: outputs (numbers as tensors), gradients and states under the names of the graph.
struct ExportedRun {
  Tensors outputs;
  Tensors gradients;
  Tensors states;
};

inline at::Tensor as_tensor(const c10::IValue& value) {
  return value.isTensor() ? value.toTensor()
                          : at::scalar_tensor(
                                value.toScalar(), value.isInt()    ? at::kLong
                                                  : value.isBool() ? at::kBool
                                                                   : at::kDouble);
}

/// The value of an input that is a number in the program.
inline c10::IValue as_input(const at::Tensor& tensor, graph::ValueType type) {
  switch (type) {
    case graph::ValueType::integer:
      return tensor.item<int64_t>();
    case graph::ValueType::number:
      return tensor.item<double>();
    case graph::ValueType::boolean:
      return tensor.item<bool>();
    default:
      return tensor;
  }
}

/// Tensors of the graph by name: views of the archive, or what is given beside it; states are copies.
inline Tensors load_tensors(const pt2::ExportedModel& model, const checkpoint::Checkpoint* beside = nullptr) {
  const auto archive = checkpoint::Checkpoint::open(model.path);
  const auto sources = pt2::find_weights(model, beside);
  Tensors tensors;
  for (const graph::ValueId id : model.graph.used_tensors()) {
    const graph::Value& value = model.graph.values[static_cast<size_t>(id)];
    const pt2::WeightSource& source = sources.at(value.name);
    const at::Tensor tensor = (source.beside ? *beside : *archive).tensor(source.name);
    const bool trained = value.kind == graph::ValueKind::parameter &&
                         !std::binary_search(model.frozen.begin(), model.frozen.end(), value.name);
    // Also where no gradient is wanted: lstm chooses its kernel by it.
    tensors[value.name] =
        value.kind == graph::ValueKind::state ? tensor.clone() : tensor.detach().requires_grad_(trained);
  }
  return tensors;
}

inline void set_tensors(graph::Executor& executor, const graph::Graph& graph, const Tensors& tensors) {
  for (const graph::ValueId id : graph.used_tensors()) {
    executor.set(id, tensors.at(graph.values[static_cast<size_t>(id)].name));
  }
}

/// Runs the whole graph. `gradients`: of the sum of the first output, for parameters that take one.
inline ExportedRun run_exported(
    const graph::Graph& graph, const Tensors& inputs, const Tensors& tensors, bool gradients) {
  Tensors own = tensors;
  for (auto& [name, tensor] : own) {
    const graph::ValueKind kind = graph.values[static_cast<size_t>(graph.find(name))].kind;
    if (kind == graph::ValueKind::state) {
      tensor = tensor.clone();
    } else if (kind == graph::ValueKind::parameter) {
      tensor = tensor.detach().requires_grad_(tensor.requires_grad());  // a leaf without a gradient yet
    }
  }
  graph::Executor executor(graph);
  set_tensors(executor, graph, own);
  for (const graph::ValueId id : graph.inputs) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    executor.set(id, as_input(inputs.at(value.name), value.type));
  }
  const c10::AutoGradMode mode(gradients);
  at::manual_seed(123);
  executor.run();
  ExportedRun run;
  for (const graph::Output& output : graph.outputs) {
    run.outputs[output.name] = as_tensor(executor.get(output.value));
  }
  if (gradients) {
    run.outputs.at(graph.outputs.front().name).sum().backward();
    for (const auto& [name, tensor] : own) {
      if (tensor.grad().defined()) {
        run.gradients[name] = tensor.grad();
      }
    }
  }
  for (const graph::ValueId id : graph.used_tensors()) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    if (value.kind == graph::ValueKind::state) {
      run.states[value.name] = executor.get(id).toTensor();
    }
  }
  return run;
}

}  // namespace shardpipe::test
