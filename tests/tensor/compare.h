#pragma once

// Whether a graph divided over parts computes what the whole graph does.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "graph/verify.h"
#include "tensor/parts.h"

namespace shardpipe::test {

/// Parameters and buffers that no file holds; states are zero.
inline Tensors random_tensors(const graph::Graph& graph, const graph::Dimensions& dimensions) {
  Tensors tensors;
  int64_t number = 0;
  for (const graph::ValueId id : graph.used_tensors()) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    if (value.content.defined()) {
      continue;
    }
    const std::vector<int64_t> sizes = graph::evaluate(*value.shape, dimensions);
    at::Tensor& tensor = tensors[value.name];
    tensor = at::zeros(sizes, *value.dtype);
    if (value.kind != graph::ValueKind::state) {
      const at::Tensor waves = at::sin(at::arange(tensor.numel(), at::kDouble) * 1.7 + static_cast<double>(++number));
      tensor.copy_((0.3 * waves + (sizes.size() == 1 ? 1.0 : 0.0)).view(sizes));
    }
  }
  return tensors;
}

/// Integers as a name asks for them, waves for the rest.
inline c10::IValue random_input(const graph::Value& value, const graph::Dimensions& dimensions) {
  const std::vector<int64_t> sizes = graph::evaluate(*value.shape, dimensions);
  int64_t count = 1;
  for (const int64_t size : sizes) {
    count *= size;
  }
  if (at::isFloatingType(*value.dtype)) {
    return at::sin(at::arange(count, at::kDouble) * 0.9).view(sizes).to(*value.dtype);
  }
  at::Tensor numbers = at::arange(count, at::kLong);
  if (value.name.find("mask") != std::string::npos) {
    numbers = at::ones({count}, at::kLong);
  } else if (value.name.find("slots") != std::string::npos) {
    numbers = at::zeros({count}, at::kLong);
  } else if (value.name.find("lengths") != std::string::npos) {
    numbers = at::full({count}, dimensions.at("tokens"), at::kLong);
  } else if (value.name.find("type") != std::string::npos) {
    numbers = numbers % 2;
  } else if (value.name.find("ids") != std::string::npos) {
    numbers = (numbers * 7 + 3) % 90;
  }
  return numbers.view(sizes).to(*value.dtype);
}

/// Runs the graph whole and over parts, in float64, and compares every output on every part and every gradient. What
/// rounding can do to sums of a few thousand terms in float64 is below 1e-11 of the largest value.
inline tensor::Sharded expect_same(
    const graph::Graph& graph,
    const graph::Dimensions& dimensions,
    int parts,
    bool gradients,
    std::vector<tensor::PinRule> pins = {}) {
  const Tensors tensors = random_tensors(graph, dimensions);
  std::map<std::string, c10::IValue> inputs;
  for (const graph::ValueId id : graph.inputs) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    inputs[value.name] = random_input(value, dimensions);
  }
  const Run whole = run_graph(graph, inputs, tensors, gradients);
  tensor::ShardOptions options;
  options.parts = parts;
  options.gradients = gradients;
  options.pins = std::move(pins);
  tensor::Sharded sharded = tensor::shard(graph, options);
  for (const graph::Graph& part : sharded.graphs) {
    graph::verify(part, "sharding");
  }
  const std::vector<Run> runs = run_parts(sharded, parts, inputs, tensors, dimensions, gradients);
  const auto expect_equal = [](const Tensors& expected, const Tensors& actual) {
    for (const auto& [name, tensor] : expected) {
      ASSERT_TRUE(actual.count(name) > 0) << name;
      ASSERT_EQ(actual.at(name).sizes(), tensor.sizes()) << name;
      const double scale = std::max(1.0, tensor.abs().max().item<double>());
      EXPECT_LE((actual.at(name) - tensor).abs().max().item<double>(), 1e-11 * scale) << name;
    }
  };
  for (const Run& run : runs) {
    expect_equal(whole.outputs, run.outputs);
    expect_equal(whole.gradients, run.gradients);
  }
  return sharded;
}

/// How often a part calls a collective.
inline int count(const tensor::Sharded& sharded, const std::string& op, bool backward) {
  return static_cast<int>(std::count_if(
      sharded.collectives.begin(), sharded.collectives.end(),
      [&](const tensor::Collective& collective) { return collective.op == op && collective.backward == backward; }));
}

}  // namespace shardpipe::test
