#include "frontend/trace/trace.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <set>

#include "base/error.h"
#include "frontend/trace/fit.h"
#include "frontend/trace/merge.h"
#include "frontend/trace/module_scope.h"
#include "frontend/trace/opaque.h"
#include "graph/alias.h"
#include "graph/verify.h"

namespace shardpipe::trace {
namespace {

std::vector<std::string> dimension_names(const Program& program) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const auto* specs : {&program.inputs, &program.states}) {
    for (const TensorSpec& spec : *specs) {
      for (const graph::Size& size : spec.shape) {
        for (const std::string& name : size.symbols()) {
          if (seen.insert(name).second) {
            names.push_back(name);
          }
        }
      }
    }
  }
  return names;
}

NamedOutputs call_forward(
    const Program& program,
    const Recorder& recorder,
    const std::vector<at::Tensor>& inputs,
    const std::vector<at::Tensor>& states) {
  try {
    return program.forward(inputs, states);
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    std::string after = "at its start";
    if (!recorder.nodes().empty()) {
      const RecordedNode& last = recorder.nodes().back();
      after = fmt::format("after operator {} {}", c10::toString(last.op->operator_name()), last.place());
    }
    throw_usage("the model failed while it was traced, {}: {}", after, current_error().message());
  }
}

void run_once(
    const Program& program,
    const graph::Dimensions& sizes,
    Run& run,
    std::map<std::string, std::string>& modules,
    OpaqueNumbers& numbers) {
  const auto make = [&](const std::vector<TensorSpec>& specs) {
    std::vector<at::Tensor> tensors;
    for (const TensorSpec& spec : specs) {
      tensors.push_back(at::empty(graph::evaluate(spec.shape, sizes), at::TensorOptions(spec.dtype).device(at::kMeta)));
      run.recorder.declare(tensors.back());
    }
    return tensors;
  };
  const std::vector<at::Tensor> inputs = make(program.inputs);
  const std::vector<at::Tensor> states = make(program.states);
  for (const NamedTensor& named : program.tensors) {
    if (run.recorder.find(named.tensor) == graph::kNoValue) {
      const size_t dot = named.name.rfind('.');
      run.recorder.declare(named.tensor, dot == std::string::npos ? std::string() : named.name.substr(0, dot));
    }
  }
  // A region without grad is the model's own; whether the graph runs with it is decided when it runs.
  const c10::AutoGradMode grad(true);
  const ModuleScope::Collector collector(modules);
  const OpaqueNumbers::Scope opaque_scope(numbers);
  const Recorder::Scope scope(run.recorder);
  for (const auto& [name, tensor] : call_forward(program, run.recorder, inputs, states)) {
    run.outputs.emplace_back(name, run.recorder.find_or_copy(tensor));
  }
}

void check_writes(const graph::Graph& graph, const Recorder& recorder) {
  const graph::AliasAnalysis aliases = graph::analyse_aliases(graph);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    for (const graph::ValueId root : aliases.writes[n]) {
      const graph::Value& value = graph.values[static_cast<size_t>(root)];
      if (value.kind == graph::ValueKind::parameter || value.kind == graph::ValueKind::input ||
          recorder.constants().count(root) > 0) {
        throw Error(
            ErrorCode::usage,
            fmt::format(
                "operator {} in \"{}\" writes to \"{}\", which is no state of the model", graph.nodes[n].op_name(),
                graph.nodes[n].module, value.name),
            "write to a copy, or declare the tensor a state");
      }
    }
  }
}

}  // namespace

graph::Graph trace(const Program& program) {
  const std::vector<std::string> dimensions = dimension_names(program);
  std::vector<graph::Dimensions> sizes;
  std::vector<Run> runs;
  std::map<std::string, std::string> modules;
  OpaqueNumbers numbers;
  const auto run = [&](const graph::Dimensions& run_sizes) {
    sizes.push_back(run_sizes);
    run_once(program, run_sizes, runs.emplace_back(), modules, numbers);
  };
  for (const graph::Dimensions& first : first_probe_sizes(dimensions)) {
    run(first);
  }
  std::set<graph::Dimensions> wanted;
  graph::Graph graph = merge_runs(program, dimensions, sizes, runs, wanted);
  while (!wanted.empty()) {
    for (const graph::Dimensions& further : std::exchange(wanted, {})) {
      run(further);
    }
    graph = merge_runs(program, dimensions, sizes, runs, wanted);
  }
  graph.modules = std::move(modules);
  check_writes(graph, runs[0].recorder);
  graph::verify(graph, "trace");
  return graph;
}

}  // namespace shardpipe::trace
