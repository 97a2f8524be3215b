#pragma once

// A graph run whole, and divided over parts that are threads of one process.
#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "graph/executor.h"
#include "tensor/collectives.h"
#include "tensor/shard.h"

namespace shardpipe::test {

/// The parts of an axis as threads, which meet in memory.
class ThreadAxis {
 public:
  explicit ThreadAxis(int parts) : tensors_(static_cast<size_t>(parts)) {}

  /// All parts' tensors, once all have given theirs.
  std::vector<at::Tensor> exchange(int part, const at::Tensor& mine) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !leaving_; });
    tensors_[static_cast<size_t>(part)] = mine.clone();
    if (++arrived_ == tensors_.size()) {
      leaving_ = true;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return leaving_; });
    std::vector<at::Tensor> all = tensors_;
    if (--arrived_ == 0) {
      leaving_ = false;
      changed_.notify_all();
    }
    return all;
  }
  int parts() const { return static_cast<int>(tensors_.size()); }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<at::Tensor> tensors_;
  size_t arrived_ = 0;
  bool leaving_ = false;
};

class ThreadPart : public tensor::AxisGroup {
 public:
  ThreadPart(ThreadAxis& axis, int part) : axis_(axis), part_(part) {}
  int parts() const override { return axis_.parts(); }
  int part() const override { return part_; }
  void all_reduce(at::Tensor& tensor) override {
    const std::vector<at::Tensor> all = axis_.exchange(part_, tensor);
    tensor.copy_(all[0]);
    for (size_t i = 1; i < all.size(); ++i) {
      tensor.add_(all[i]);
    }
  }
  void all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) override {
    const std::vector<at::Tensor> all = axis_.exchange(part_, mine);
    for (size_t i = 0; i < all.size(); ++i) {
      pieces[i].copy_(all[i]);
    }
  }

 private:
  ThreadAxis& axis_;
  int part_;
};

using Tensors = std::map<std::string, at::Tensor>;

struct Run {
  Tensors outputs;
  Tensors gradients;  ///< of a random linear function of the floating-point outputs
};

/// Runs a graph on inputs and named tensors (parameters, buffers without content, states; all are cloned).
inline Run run_graph(
    const graph::Graph& graph,
    const std::map<std::string, c10::IValue>& inputs,
    const Tensors& tensors,
    bool gradients) {
  const at::AutoGradMode mode(gradients);
  graph::Executor executor(graph);
  std::vector<std::string> names;
  std::vector<at::Tensor> leaves;
  for (const graph::ValueId id : graph.used_tensors()) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    at::Tensor tensor = value.content.defined() ? value.content : tensors.at(value.name).clone();
    if (gradients && value.kind == graph::ValueKind::parameter) {
      tensor.requires_grad_(true);
      names.push_back(value.name);
      leaves.push_back(tensor);
    }
    executor.set(id, tensor);
  }
  for (const graph::ValueId id : graph.inputs) {
    executor.set(id, inputs.at(graph.values[static_cast<size_t>(id)].name));
  }
  executor.run();
  Run run;
  std::vector<at::Tensor> roots;
  std::vector<at::Tensor> seeds;
  for (const graph::Output& output : graph.outputs) {
    const c10::IValue& value = executor.get(output.value);
    if (!value.isTensor()) {
      continue;
    }
    run.outputs[output.name] = value.toTensor().detach();
    if (gradients && value.toTensor().requires_grad()) {
      roots.push_back(value.toTensor());
      const int64_t count = value.toTensor().numel();
      seeds.push_back(at::sin(at::arange(count, value.toTensor().options())).view(value.toTensor().sizes()));
    }
  }
  if (!roots.empty()) {
    const auto found = torch::autograd::grad(roots, leaves, seeds, false, false, true);
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i].defined()) {
        run.gradients[names[i]] = found[i];
      }
    }
  }
  return run;
}

/// The same over parts: outputs of each part, gradients joined from all parts' pieces.
inline std::vector<Run> run_parts(
    const tensor::Sharded& sharded,
    int parts,
    const std::map<std::string, c10::IValue>& inputs,
    const Tensors& tensors,
    const graph::Dimensions& dimensions,
    bool gradients) {
  ThreadAxis axis(parts);
  std::vector<Run> runs(static_cast<size_t>(parts));
  std::vector<std::string> errors(static_cast<size_t>(parts));
  std::vector<std::thread> threads;
  for (int part = 0; part < parts; ++part) {
    threads.emplace_back([&, part] {
      ThreadPart group(axis, part);
      const tensor::AxisScope scope("tp", group);
      const graph::Graph& graph = sharded.graphs[sharded.graphs.size() == 1 ? 0 : static_cast<size_t>(part)];
      Tensors mine;
      for (const auto& [name, tensor] : tensors) {
        const auto at = sharded.shards.find(name);
        mine[name] = at == sharded.shards.end() ? tensor : tensor::take(tensor, at->second, part).contiguous();
      }
      // Caches are as large as the part's graph says; several parts may have the same heads.
      for (const graph::Value& value : graph.values) {
        if (value.kind == graph::ValueKind::state && value.state == graph::StateKind::per_sequence) {
          mine[value.name] = at::zeros(graph::evaluate(*value.shape, dimensions), *value.dtype);
        }
      }
      try {
        runs[static_cast<size_t>(part)] = run_graph(graph, inputs, mine, gradients);
      } catch (const std::exception& error) {
        fprintf(stderr, "part %d: %s\n", part, error.what());
        std::abort();  // the other parts would wait for this one
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (auto& [name, shard] : sharded.shards) {
    std::vector<at::Tensor> pieces;
    for (const Run& run : runs) {
      const auto at = run.gradients.find(name);
      if (at != run.gradients.end()) {
        pieces.push_back(at->second);
      }
    }
    if (pieces.size() == runs.size()) {
      for (Run& run : runs) {
        run.gradients[name] = tensor::join(pieces, shard);
      }
    }
  }
  return runs;
}

}  // namespace shardpipe::test
