#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "frontend/trace/trace.h"
#include "graph/executor.h"
#include "graph/text.h"

namespace shardpipe::test {

using Tensors = std::vector<at::Tensor>;
using Weights = std::map<std::string, at::Tensor>;

/// A program whose weights are an argument, so that it runs both on `meta` and on real tensors.
struct Model {
  std::vector<trace::TensorSpec> inputs;
  std::vector<trace::TensorSpec> states;
  Weights weights;  ///< on the CPU
  std::function<trace::NamedOutputs(const Weights&, const Tensors& inputs, const Tensors& states)> forward;
};

inline trace::Program program_of(const Model& model) {
  trace::Program program{model.inputs, model.states, {}, {}};
  Weights meta;
  for (const auto& [name, tensor] : model.weights) {
    meta[name] = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta));
    program.tensors.push_back({name, meta[name]});
  }
  program.forward = [forward = model.forward, meta](const Tensors& inputs, const Tensors& states) {
    return forward(meta, inputs, states);
  };
  return program;
}

inline void expect_same_bits(const at::Tensor& a, const at::Tensor& b, const std::string& what) {
  ASSERT_EQ(a.sizes(), b.sizes()) << what;
  ASSERT_EQ(a.scalar_type(), b.scalar_type()) << what;
  const at::Tensor x = a.detach().contiguous();
  const at::Tensor y = b.detach().contiguous();
  if (x.nbytes() > 0) {
    EXPECT_EQ(std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()), 0) << what;
  }
}

inline Tensors random_tensors(const std::vector<trace::TensorSpec>& specs, const graph::Dimensions& sizes) {
  Tensors tensors;
  for (const trace::TensorSpec& spec : specs) {
    const auto shape = graph::evaluate(spec.shape, sizes);
    tensors.push_back(
        at::isFloatingType(spec.dtype) ? at::randn(shape).to(spec.dtype) : at::randint(0, 5, shape).to(spec.dtype));
  }
  return tensors;
}

/// The graph, executed at `sizes`, gives the outputs and leaves the states of the model itself, bit by bit; values
/// whose shape the graph knows have it.
inline void expect_replay(const graph::Graph& graph, const Model& model, const graph::Dimensions& sizes) {
  SCOPED_TRACE(testing::PrintToString(sizes));
  const Tensors inputs = random_tensors(model.inputs, sizes);
  const Tensors states = random_tensors(model.states, sizes);
  Tensors reference_states;
  for (const at::Tensor& state : states) {
    reference_states.push_back(state.clone());
  }
  const trace::NamedOutputs expected = model.forward(model.weights, inputs, reference_states);

  std::vector<graph::ValueId> keep;
  for (const graph::Node& node : graph.nodes) {
    keep.insert(keep.end(), node.results.begin(), node.results.end());
  }
  graph::Executor executor(graph, keep);
  for (size_t id = 0; id < graph.values.size(); ++id) {
    const graph::Value& value = graph.values[id];
    const auto given = model.weights.find(value.name);
    if (value.content.defined()) {
      executor.set(static_cast<graph::ValueId>(id), value.content);
    } else if (value.kind == graph::ValueKind::parameter && given != model.weights.end()) {
      executor.set(static_cast<graph::ValueId>(id), given->second);
    }
  }
  const auto give = [&](const std::vector<trace::TensorSpec>& specs, const Tensors& tensors) {
    for (size_t i = 0; i < specs.size(); ++i) {
      // The text holds no state that nothing uses.
      if (const graph::ValueId id = graph.find(specs[i].name); id != graph::kNoValue) {
        executor.set(id, tensors[i]);
      }
    }
  };
  give(model.inputs, inputs);
  give(model.states, states);
  executor.run();
  ASSERT_EQ(graph.outputs.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(graph.outputs[i].name, expected[i].first);
    expect_same_bits(executor.get(graph.outputs[i].value).toTensor(), expected[i].second, expected[i].first);
  }
  for (size_t i = 0; i < states.size(); ++i) {
    expect_same_bits(states[i], reference_states[i], model.states[i].name);
  }
  // The last value of a tensor object has its final shape: operators such as t_ change it after its first.
  std::set<const at::TensorImpl*> seen;
  for (auto at = keep.rbegin(); at != keep.rend(); ++at) {
    const graph::ValueId id = *at;
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    if (executor.get(id).isTensor() && !seen.insert(executor.get(id).toTensor().unsafeGetTensorImpl()).second) {
      continue;
    }
    if (value.shape) {
      EXPECT_EQ(executor.get(id).toTensor().sizes(), graph::evaluate(*value.shape, sizes)) << "%" << id;
    }
    if (value.dtype) {
      EXPECT_EQ(executor.get(id).toTensor().scalar_type(), *value.dtype) << "%" << id;
    }
  }
}

/// Traces the model, then replays it at each of the sizes; the printed graph replays too.
inline graph::Graph expect_replays(const Model& model, const std::vector<graph::Dimensions>& all_sizes) {
  graph::Graph graph = trace::trace(program_of(model));
  const graph::Graph parsed = graph::parse(graph::print(graph), "printed");
  for (const graph::Dimensions& sizes : all_sizes) {
    expect_replay(graph, model, sizes);
    expect_replay(parsed, model, sizes);
  }
  return graph;
}

inline std::vector<std::string> op_names(const graph::Graph& graph) {
  std::vector<std::string> names;
  for (const graph::Node& node : graph.nodes) {
    names.push_back(node.op_name());
  }
  return names;
}

}  // namespace shardpipe::test
