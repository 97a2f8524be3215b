// What the executor adds to a node: a graph of many cheap nodes against the same calls made directly, unboxed.
// The two alternate, so that a change of the machine's speed meets both. Counters, in microseconds a node: direct_us,
// executor_us, overhead_us (the smallest of each over all rounds; their difference). Goal: overhead_us <= 0.15.
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <chrono>
#include <limits>

#include "graph/executor.h"
#include "graph/text.h"

namespace shardpipe::graph {
namespace {

constexpr int kNodes = 1000;

struct Family {
  const char* name;
  const char* node;  // %0 parameter [4], %1 parameter [4, 4], %2 the previous result [4, 4], %3 this one
  at::Tensor (*direct)(const at::Tensor& row, const at::Tensor& square, const at::Tensor& x);
};

const Family kFamilies[] = {
    {"alias", "aten::alias(%2)", [](auto&, auto&, auto& x) { return at::alias(x); }},
    {"transpose", "aten::transpose.int(%2, 0, 1)", [](auto&, auto&, auto& x) { return x.transpose(0, 1); }},
    {"view", "aten::view(%2, ints[4, 4])",
     [](auto&, auto&, auto& x) {
       return x.view({4, 4});
     }},
    {"relu", "aten::relu(%2)", [](auto&, auto&, auto& x) { return x.relu(); }},
    {"add", "aten::add.Tensor(%2, %0, 1)", [](auto& row, auto&, auto& x) { return at::add(x, row, 1); }},
    {"linear", "aten::linear(%2, %1, %0)", [](auto& row, auto& square, auto& x) { return at::linear(x, square, row); }},
    {"layer_norm", "aten::layer_norm(%2, ints[4], %0, %0, 1e-05, true)",
     [](auto& row, auto&, auto& x) { return at::layer_norm(x, {4}, row, row, 1e-05, true); }},
    {"cat", "aten::cat([%2], 0)", [](auto&, auto&, auto& x) { return at::cat({x}, 0); }},
};

Graph chain(const Family& family) {
  std::string text =
      "shardpipe-graph 1\nparameter %0 \"row\": float32[4]\nparameter %1 \"square\": float32[4, 4]\n"
      "input %2 \"x\": float32[4, 4]\n";
  for (int n = 0; n < kNodes; ++n) {
    std::string node = family.node;
    node.replace(node.find("%2"), 2, fmt::format("%{}", n + 2));
    text += fmt::format("#{} %{}: float32[4, 4] = {} in \"m\"\n", n, n + 3, node);
  }
  return parse(text + fmt::format("output \"y\" %{}\n", kNodes + 2), "benchmark");
}

void executor(benchmark::State& state, const Family& family, bool grad) {
  at::set_num_threads(1);
  const c10::AutoGradMode mode(grad);
  const at::Tensor row = at::rand({4}).set_requires_grad(grad);
  const at::Tensor square = at::rand({4, 4}).set_requires_grad(grad);
  const at::Tensor x = at::rand({4, 4});
  Executor executor(chain(family));
  executor.set(0, row);
  executor.set(1, square);
  executor.set(2, x);
  using Clock = std::chrono::steady_clock;
  double direct_us = std::numeric_limits<double>::infinity();
  double executor_us = direct_us;
  for (auto _ : state) {
    const auto start = Clock::now();
    at::Tensor y = x;
    for (int n = 0; n < kNodes; ++n) {
      y = family.direct(row, square, y);
    }
    const auto middle = Clock::now();
    executor.run();
    const auto end = Clock::now();
    const auto per_node = [](auto duration) {
      return std::chrono::duration<double, std::micro>(duration).count() / kNodes;
    };
    direct_us = std::min(direct_us, per_node(middle - start));
    executor_us = std::min(executor_us, per_node(end - middle));
    state.SetIterationTime(std::chrono::duration<double>(end - middle).count());
    executor.release_results();
  }
  state.counters["direct_us"] = direct_us;
  state.counters["executor_us"] = executor_us;
  state.counters["overhead_us"] = executor_us - direct_us;
}

}  // namespace
}  // namespace shardpipe::graph

int main(int argc, char** argv) {
  using shardpipe::graph::executor;
  for (const auto& family : shardpipe::graph::kFamilies) {
    for (const bool grad : {false, true}) {
      const std::string name = std::string("executor/") + family.name + (grad ? "/grad" : "");
      benchmark::RegisterBenchmark(
          name.c_str(), [&family, grad](benchmark::State& state) { executor(state, family, grad); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
