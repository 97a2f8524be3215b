#include "plan/profile.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "base/error.h"
#include "graph/executor.h"
#include "partition/policies.h"
#include "partition/stages.h"

namespace shardpipe::plan {
namespace {

using graph::Graph;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;
using Clock = std::chrono::steady_clock;

constexpr double kLongEnough = 0.5;  // seconds
constexpr int kMostPasses = 5;

// The graph cut at the bounds of its layers, but for those that a cut cannot be at.
partition::CutPoints possible_bounds(const Graph& graph) {
  const partition::CutPoints bounds = partition::layer_bounds(graph);
  const auto possible = [&](const partition::CutPoints& points) {
    try {
      partition::cut(graph, points);
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  if (possible(bounds)) {
    return bounds;
  }
  partition::CutPoints some;
  for (const size_t bound : bounds) {
    some.push_back(bound);
    if (!possible(some)) {
      some.pop_back();
    }
  }
  return some;
}

class Profile {
 public:
  Profile(
      const Graph& graph,
      const std::map<std::string, at::Tensor>& inputs,
      graph::Dimensions sizes,
      const LoadTensor& load)
      : graph_(graph), sizes_(std::move(sizes)), load_(load), points_(possible_bounds(graph)) {
    for (const ValueId id : graph.inputs) {
      const Value& value = graph.values[static_cast<size_t>(id)];
      const auto given = inputs.find(value.name);
      values_[id] = graph::as_value(given == inputs.end() ? zeros(value, sizes_) : given->second, value.type);
    }
  }

  partition::Costs run() {
    const c10::InferenceMode inference;
    const partition::Stages layers = partition::cut(graph_, points_);
    std::vector<graph::Executor> executors;
    for (const Graph& layer : layers.graphs) {
      executors.emplace_back(layer);
      set_tensors(layer, executors.back());
    }
    std::vector<double> best(executors.size(), std::numeric_limits<double>::infinity());
    double total = 0;
    for (int pass = 0; pass <= kMostPasses && total < kLongEnough; ++pass) {
      for (size_t layer = 0; layer < executors.size(); ++layer) {
        const double seconds = time(layers.graphs[layer], executors[layer]);
        if (pass > 0) {  // the first one reads the weights from their files
          best[layer] = std::min(best[layer], seconds);
          total += seconds;
        }
      }
    }
    return divide(best);
  }

 private:
  void set_tensors(const Graph& layer, graph::Executor& executor) const {
    for (const ValueId id : layer.used_tensors()) {
      const Value& value = layer.values[static_cast<size_t>(id)];
      if (value.kind != ValueKind::state) {
        executor.set(id, load_(value));
      } else if (value.state == graph::StateKind::shared) {
        executor.set(id, load_(value).clone());
      } else {
        executor.set(id, zeros(value, sizes_));
      }
    }
  }

  double time(const Graph& layer, graph::Executor& executor) {
    for (const ValueId id : layer.inputs) {
      executor.set(id, values_.at(id));
    }
    const Clock::time_point start = Clock::now();
    executor.run();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    for (const graph::Output& output : layer.outputs) {
      values_[output.value] = executor.get(output.value);
    }
    return seconds;
  }

  // The time of each layer, divided among its nodes.
  partition::Costs divide(const std::vector<double>& seconds) const {
    partition::Costs costs = partition::cost_model(graph_, sizes_);
    for (size_t layer = 0; layer < seconds.size(); ++layer) {
      const size_t begin = layer == 0 ? 0 : points_[layer - 1];
      const size_t end = layer == points_.size() ? graph_.nodes.size() : points_[layer];
      double model = 0;
      for (size_t n = begin; n < end; ++n) {
        model += costs.compute[n];
      }
      for (size_t n = begin; n < end && model > 0; ++n) {
        costs.compute[n] *= seconds[layer] / model;
      }
    }
    return costs;
  }

  const Graph& graph_;
  graph::Dimensions sizes_;
  const LoadTensor& load_;
  partition::CutPoints points_;
  std::map<ValueId, c10::IValue> values_;  // inputs, and what the layers so far left for others
};

}  // namespace

at::Tensor zeros(const Value& value, const graph::Dimensions& sizes) {
  const std::vector<int64_t> shape = value.shape ? graph::evaluate(*value.shape, sizes) : std::vector<int64_t>();
  const bool number = value.type != graph::ValueType::tensor;
  return at::zeros(shape, number ? at::kDouble : value.dtype.value_or(at::kFloat));
}

graph::Dimensions dimensions_of(
    const Graph& graph, const std::map<std::string, at::Tensor>& inputs, const graph::Dimensions& sizes) {
  graph::Dimensions known;
  for (const ValueId id : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    const auto input = inputs.find(value.name);
    if (input == inputs.end() || !value.shape || static_cast<int64_t>(value.shape->size()) != input->second.dim()) {
      continue;
    }
    for (size_t d = 0; d < value.shape->size(); ++d) {
      // Of a size such as 8*n too: n is what gives it.
      const graph::Size& size = (*value.shape)[d];
      const std::vector<std::string> symbols = size.symbols();
      const int64_t extent = input->second.size(static_cast<int64_t>(d));
      if (symbols.size() != 1 || known.count(symbols[0]) > 0) {
        continue;
      }
      const int64_t one = size.evaluate({{symbols[0], 1}});
      const int64_t step = size.evaluate({{symbols[0], 2}}) - one;
      if (step > 0 && (extent - one) % step == 0) {
        known[symbols[0]] = 1 + (extent - one) / step;
      }
    }
  }
  known.insert(sizes.begin(), sizes.end());
  return known;
}

partition::Costs measure_costs(
    const Graph& graph,
    const std::map<std::string, at::Tensor>& inputs,
    const graph::Dimensions& sizes,
    const LoadTensor& load) {
  const graph::Dimensions known = partition::with_unknown(graph, dimensions_of(graph, inputs, sizes));
  try {
    return Profile(graph, inputs, known, load).run();
  } catch (const Error& error) {
    throw Error(
        error.code() == ErrorCode::internal ? ErrorCode::usage : error.code(),
        fmt::format("--profile: the example cannot be run: {}", error.message()),
        "give inputs that the model takes, or leave out --profile");
  }
}

}  // namespace shardpipe::plan
