#include "plan/profile.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <latch>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>

#include "base/error.h"
#include "graph/executor.h"
#include "kernels/threads_guard.h"
#include "partition/policies.h"
#include "partition/stages.h"
#include "plan/rates.h"

namespace shardpipe::plan {
namespace {

using graph::Graph;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;
using Clock = std::chrono::steady_clock;

// The first pass reads the weights from their files, and the next one's memory is new.
constexpr int kWarmUp = 2;
// Alone and together in turns, each long enough for some passes: the median of their means, since memory may be slower
// for a while, and a round may be disturbed.
constexpr int kRounds = 3;
constexpr int kMostPasses = 20;
constexpr double kRoundSeconds = 0.3;
constexpr double kTooLong = 20;  // seconds, for another round

// The graph cut at the bounds of its layers, but for those that a cut cannot be at.
partition::CutPoints possible_bounds(const Graph& graph) {
  partition::CutPoints bounds = partition::layer_bounds(graph);
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

using Values = std::map<ValueId, c10::IValue>;

class Profiler {
 public:
  Profiler(
      const Graph& graph,
      const std::map<std::string, at::Tensor>& inputs,
      graph::Dimensions sizes,
      const LoadTensor& load,
      tensor::AxisGroup* tp)
      : graph_(graph),
        sizes_(std::move(sizes)),
        load_(load),
        tp_(tp),
        points_(possible_bounds(graph)),
        layers_(partition::cut(graph, points_)) {
    for (const ValueId id : graph.inputs) {
      const Value& value = graph.values[static_cast<size_t>(id)];
      const auto given = inputs.find(value.name);
      inputs_[id] = graph::as_value(given == inputs.end() ? zeros(value, sizes_) : given->second, value.type);
    }
    for (size_t i = 0; i < layers_.graphs.size(); ++i) {
      const Graph& layer = layers_.graphs[i];
      executors_.emplace_back(layer);
      set_tensors(layer, executors_.back());
      for (const ValueId id : layer.inputs) {
        last_use_[id] = i;
      }
    }
  }

  Profile run(int ranks) {
    const c10::InferenceMode inference;
    std::optional<tensor::AxisScope> scope;
    enter(scope);
    for (int pass = 0; pass < kWarmUp; ++pass) {
      Values values;
      for (size_t layer = 0; layer < executors_.size(); ++layer) {
        time(layer, values);
      }
    }
    std::vector<std::vector<double>> alone(executors_.size());
    const size_t count = std::min(static_cast<size_t>(ranks), executors_.size());
    std::vector<Part> parts;
    double total = 0;
    for (int round = 0; round < kRounds && total < kTooLong; ++round) {
      total += run_alone(alone);
      if (count > 1) {
        if (round == 0) {
          parts = make_parts(count, medians(alone));
        }
        total += run_together(parts);
      }
    }
    const std::vector<double> seconds = medians(alone);
    Profile profile{divide(seconds), 1};
    if (count > 1) {
      double work = 0;
      for (const Part& part : parts) {
        const auto first = seconds.begin();
        work +=
            std::accumulate(first + static_cast<ptrdiff_t>(part.begin), first + static_cast<ptrdiff_t>(part.end), 0.0) /
            median(part.seconds);
      }
      profile.together = std::clamp(work, 1.0, static_cast<double>(count));
    }
    return profile;
  }

 private:
  // Layers that one rank runs, and what they get from those before.
  struct Part {
    size_t begin = 0;
    size_t end = 0;
    Values received;
    std::vector<double> seconds;  // of a pass while the other parts run: the mean of each round
  };

  // The collectives' group of this thread.
  void enter(std::optional<tensor::AxisScope>& scope) const {
    if (tp_ != nullptr) {
      scope.emplace("tp", *tp_);
    }
  }

  static std::vector<double> medians(const std::vector<std::vector<double>>& lists) {
    std::vector<double> all;
    for (const std::vector<double>& list : lists) {
      all.push_back(median(list));
    }
    return all;
  }

  // Passes over all layers, and each layer's mean; returns their time.
  double run_alone(std::vector<std::vector<double>>& means) {
    std::vector<double> sums(executors_.size(), 0);
    double total = 0;
    int passes = 0;
    for (; passes == 0 || (passes < kMostPasses && total < kRoundSeconds); ++passes) {
      Values values;
      for (size_t layer = 0; layer < executors_.size(); ++layer) {
        const double seconds = time(layer, values);
        sums[layer] += seconds;
        total += seconds;
      }
    }
    for (size_t layer = 0; layer < executors_.size(); ++layer) {
      means[layer].push_back(sums[layer] / passes);
    }
    return total;
  }

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

  // Runs a layer on `values`, what those before it left. They live as long as some layer needs them, as in one graph:
  // their memory is what the next ones are written to.
  double time(size_t number, Values& values) {
    const Graph& layer = layers_.graphs[number];
    graph::Executor& executor = executors_[number];
    for (const ValueId id : layer.inputs) {
      const auto input = inputs_.find(id);
      executor.set(id, input == inputs_.end() ? values.at(id) : input->second);
      if (last_use_.at(id) == number) {
        values.erase(id);
      }
    }
    const Clock::time_point start = Clock::now();
    executor.run();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    for (const graph::Output& output : layer.outputs) {
      if (const auto use = last_use_.find(output.value); use != last_use_.end() && use->second > number) {
        values[output.value] = executor.get(output.value);
      }
    }
    executor.release_results();
    for (const ValueId id : layer.inputs) {
      executor.set(id, at::Tensor());
    }
    return seconds;
  }

  // Contiguous parts of about the same time, with what they receive.
  std::vector<Part> make_parts(size_t count, const std::vector<double>& alone) {
    const double all = std::accumulate(alone.begin(), alone.end(), 0.0);
    std::vector<Part> parts(count);
    Values values;
    double sum = 0;
    size_t layer = 0;
    for (size_t i = 0; i < count; ++i) {
      Part& part = parts[i];
      const bool last = i + 1 == count;
      const double share = all * static_cast<double>(i + 1) / static_cast<double>(count);
      part.begin = layer;
      part.received = values;
      do {
        sum += alone[layer];
        time(layer++, values);
      } while (layer + (count - i - 1) < alone.size() && (last || sum + alone[layer] / 2 < share));
      part.end = layer;
    }
    return parts;
  }

  // All parts at the same time; returns how long that took.
  double run_together(std::vector<Part>& parts) {
    const Clock::time_point begin = Clock::now();
    const int threads = at::get_num_threads();
    std::latch start(std::ssize(parts));
    std::atomic<ptrdiff_t> unfinished = std::ssize(parts);
    std::mutex mutex;
    std::exception_ptr problem;
    std::vector<std::thread> workers;
    for (Part& part : parts) {
      workers.emplace_back([&, this] {
        start.arrive_and_wait();
        try {
          const c10::InferenceMode inference;
          std::optional<tensor::AxisScope> scope;
          enter(scope);
          const kernels::ThreadsGuard guard(threads);
          run_part(part, unfinished);
        } catch (...) {
          const std::lock_guard lock(mutex);
          problem = std::current_exception();
          unfinished = 0;
        }
      });
    }
    for (std::thread& worker : workers) {
      worker.join();
    }
    if (problem) {
      std::rethrow_exception(problem);
    }
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  // Again and again, until all parts were run often enough.
  void run_part(Part& part, std::atomic<ptrdiff_t>& unfinished) {
    double total = 0;
    bool finished = false;
    for (int pass = 0; unfinished > 0; ++pass) {
      Values values = part.received;
      double seconds = 0;
      for (size_t layer = part.begin; layer < part.end; ++layer) {
        seconds += time(layer, values);
      }
      if (pass == 0 || finished) {  // the first one begins while others do not yet run
        continue;
      }
      total += seconds;
      if (pass >= kMostPasses || total >= kRoundSeconds) {
        part.seconds.push_back(total / pass);
        finished = true;
        --unfinished;
      }
    }
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
  tensor::AxisGroup* tp_;
  partition::CutPoints points_;
  partition::Stages layers_;
  std::vector<graph::Executor> executors_;
  Values inputs_;
  std::map<ValueId, size_t> last_use_;  // layer
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

Profile measure_costs(
    const Graph& graph,
    const std::map<std::string, at::Tensor>& inputs,
    const graph::Dimensions& sizes,
    const LoadTensor& load,
    int ranks,
    tensor::AxisGroup* tp) {
  const graph::Dimensions known = partition::with_unknown(graph, dimensions_of(graph, inputs, sizes));
  try {
    return Profiler(graph, inputs, known, load, tp).run(ranks);
  } catch (const Error& error) {
    throw Error(
        error.code() == ErrorCode::internal ? ErrorCode::usage : error.code(),
        fmt::format("--profile: the example cannot be run: {}", error.message()),
        "give inputs that the model takes, or leave out --profile");
  }
}

}  // namespace shardpipe::plan
