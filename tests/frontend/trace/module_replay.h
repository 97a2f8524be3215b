#pragma once

// The graph of a module against the module's own eager forward.
#include <torch/nn/module.h>

#include "frontend/trace/module.h"
#include "frontend/trace/replay.h"

namespace shardpipe::test {

using TensorMap = std::map<std::string, at::Tensor>;

inline TensorMap tensors_of(torch::nn::Module& module) {
  TensorMap tensors;
  for (const auto& item : module.named_parameters()) {
    tensors[item.key()] = item.value();
  }
  for (const auto& item : module.named_buffers()) {
    tensors[item.key()] = item.value();
  }
  return tensors;
}

inline void seed_generator(uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  generator.set_current_seed(seed);
}

/// A number that depends on all elements of all floating outputs differently.
inline at::Tensor mixed_sum(const trace::NamedOutputs& outputs) {
  at::Tensor sum = at::zeros({});
  for (const auto& [name, output] : outputs) {
    if (output.is_floating_point()) {
      const at::Tensor weights = at::linspace(-1, 2, output.numel()).view(output.sizes());
      sum = sum + (output * weights).sum();
    }
  }
  return sum;
}

/// Runs both at `sizes` with the same random numbers: outputs, what is left in the states, and (unless `gradients` is
/// false) the gradients of all parameters and floating inputs are the same bits.
inline void expect_same_as_eager(
    const trace::TracedModule& traced,
    torch::nn::Module& module,
    const trace::ModuleSignature& signature,
    const graph::Dimensions& sizes,
    bool gradients = true) {
  SCOPED_TRACE(testing::PrintToString(sizes));
  Tensors inputs = random_tensors(signature.inputs, sizes);
  Tensors graph_inputs;
  for (at::Tensor& input : inputs) {
    graph_inputs.push_back(input.clone());
    if (gradients && input.is_floating_point()) {
      input.requires_grad_();
      graph_inputs.back().requires_grad_();
    }
  }
  const graph::Graph& graph = traced.graph;
  graph::Executor executor(graph);
  TensorMap given;
  for (size_t id = 0; id < graph.values.size(); ++id) {
    const graph::Value& value = graph.values[id];
    if (value.content.defined()) {
      executor.set(static_cast<graph::ValueId>(id), value.content);
    } else if (value.kind != graph::ValueKind::result && value.kind != graph::ValueKind::input) {
      at::Tensor tensor = traced.tensors(value.name).detach().clone();
      tensor.requires_grad_(value.kind == graph::ValueKind::parameter && gradients && tensor.is_floating_point());
      given[value.name] = tensor;
      executor.set(static_cast<graph::ValueId>(id), tensor);
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    executor.set(graph.inputs[i], graph_inputs[i]);
  }
  const c10::AutoGradMode grad(gradients);
  seed_generator(7);
  const trace::NamedOutputs expected = signature.forward(module, inputs);
  seed_generator(7);
  executor.run();
  trace::NamedOutputs outputs;
  ASSERT_EQ(graph.outputs.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(graph.outputs[i].name, expected[i].first);
    outputs.emplace_back(expected[i].first, executor.get(graph.outputs[i].value).toTensor());
    expect_same_bits(outputs.back().second, expected[i].second, expected[i].first);
  }
  const TensorMap own = tensors_of(module);
  for (const auto& [name, tensor] : given) {
    expect_same_bits(tensor, own.at(name), name);
  }
  if (!gradients) {
    return;
  }
  module.zero_grad();
  if (const at::Tensor sum = mixed_sum(expected); sum.requires_grad()) {
    sum.backward();
    mixed_sum(outputs).backward();
  }
  const auto same_gradient = [](const at::Tensor& a, const at::Tensor& b, const std::string& name) {
    ASSERT_EQ(a.grad().defined(), b.grad().defined()) << name;
    if (a.grad().defined()) {
      expect_same_bits(a.grad(), b.grad(), "gradient of " + name);
    }
  };
  for (const auto& [name, tensor] : given) {
    if (tensor.requires_grad()) {
      same_gradient(tensor, own.at(name), name);
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    same_gradient(graph_inputs[i], inputs[i], signature.inputs[i].name);
  }
}

inline trace::TracedModule expect_module_replays(
    const std::shared_ptr<torch::nn::Module>& module,
    const trace::ModuleSignature& signature,
    const std::vector<graph::Dimensions>& all_sizes,
    bool gradients = true) {
  trace::TracedModule traced = trace::trace_module(module, signature);
  for (const graph::Dimensions& sizes : all_sizes) {
    expect_same_as_eager(traced, *module, signature, sizes, gradients);
  }
  EXPECT_EQ(graph::print(graph::parse(graph::print(traced.graph), "printed")), graph::print(traced.graph));
  return traced;
}

/// One input "x", one output "y".
template <typename M>
trace::ModuleSignature unary(const graph::Shape& shape, at::ScalarType dtype = at::kFloat) {
  return {{{"x", dtype, shape}}, [](torch::nn::Module& module, const Tensors& inputs) -> trace::NamedOutputs {
            return {{"y", dynamic_cast<M&>(module).forward(inputs[0])}};
          }};
}

inline std::string path_of(const graph::Graph& graph, const std::string& op, size_t occurrence = 0) {
  for (const graph::Node& node : graph.nodes) {
    if (node.op_name() == op && occurrence-- == 0) {
      return node.module;
    }
  }
  return "no such node";
}

}  // namespace shardpipe::test
