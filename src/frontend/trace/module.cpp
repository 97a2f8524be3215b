#include "frontend/trace/module.h"

#include <ATen/ops/empty_strided.h>
#include <torch/nn/module.h>

#include "base/error.h"
#include "frontend/trace/canonical.h"
#include "frontend/trace/init_log.h"
#include "frontend/trace/module_paths.h"
#include "graph/alias.h"
#include "graph/verify.h"

namespace shardpipe::trace {
namespace {

using graph::Graph;
using graph::Value;
using graph::ValueKind;

// "(anonymous namespace)::BlockImpl" -> "Block"
std::string class_name(const torch::nn::Module& module) {
  const std::string full = module.name();
  size_t start = 0;
  int depth = 0;
  for (size_t i = 0; i < full.size(); ++i) {
    depth += (full[i] == '<' ? 1 : 0) - (full[i] == '>' ? 1 : 0);
    if (depth == 0 && full[i] == ':') {
      start = i + 1;
    }
  }
  std::string name = full.substr(start);
  if (name.size() > 4 && name.ends_with("Impl")) {
    name.resize(name.size() - 4);
  }
  return name;
}

Program program_of(const std::shared_ptr<torch::nn::Module>& module, const ModuleSignature& signature) {
  Program program{signature.inputs, {}, {}, {}};
  for (const auto& parameter : module->named_parameters()) {
    program.tensors.push_back({parameter.key(), parameter.value(), ValueKind::parameter});
  }
  for (const auto& buffer : module->named_buffers()) {
    program.tensors.push_back({buffer.key(), buffer.value(), ValueKind::buffer});
  }
  for (const TensorSpec& spec : signature.inputs) {
    for (const NamedTensor& named : program.tensors) {
      if (named.name == spec.name) {
        throw_usage("input \"{}\" is named like a tensor of the module", spec.name);
      }
    }
  }
  program.forward = [&](const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>&) {
    return signature.forward(*module, inputs);
  };
  return program;
}

void mark_states(Graph& graph) {
  const graph::AliasAnalysis aliases = graph::analyse_aliases(graph);
  for (const auto& roots : aliases.writes) {
    for (const graph::ValueId root : roots) {
      if (Value& value = graph.values[static_cast<size_t>(root)]; value.kind == ValueKind::buffer) {
        value.kind = ValueKind::state;
        value.state = graph::StateKind::shared;
      }
    }
  }
}

Graph traced_graph(const std::shared_ptr<torch::nn::Module>& module, const ModuleSignature& signature) {
  if (module == nullptr) {
    throw_usage("there is no module to trace");
  }
  const Program program = program_of(module, signature);
  Graph graph = trace(program);
  for (const NamedTensor& named : program.tensors) {
    graph.values[static_cast<size_t>(graph.find(named.name))].content = at::Tensor();
  }
  for (const auto& child : module->named_modules(std::string(), /*include_self=*/false)) {
    graph.modules[child.key()] = class_name(*child.value());
  }
  canonicalise_linear(graph);
  mark_states(graph);
  infer_module_paths(graph, class_name(*module));
  graph::verify(graph, "trace_module");
  return graph;
}

std::map<std::string, at::Tensor> tensors_of(const torch::nn::Module& module) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& parameter : module.named_parameters()) {
    tensors.emplace(parameter.key(), parameter.value().detach());
  }
  for (const auto& buffer : module.named_buffers()) {
    tensors.emplace(buffer.key(), buffer.value().detach());
  }
  return tensors;
}

const at::Tensor& tensor_named(const std::map<std::string, at::Tensor>& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    throw_usage("the module has no parameter or buffer \"{}\"", name);
  }
  return found->second;
}

}  // namespace

TracedModule trace_module(const std::shared_ptr<torch::nn::Module>& module, const ModuleSignature& signature) {
  Graph graph = traced_graph(module, signature);
  TensorSource source = [tensors = tensors_of(*module)](const std::string& name) {
    const at::Tensor& tensor = tensor_named(tensors, name);
    if (tensor.is_meta()) {
      throw Error(
          ErrorCode::usage, fmt::format("\"{}\" of the module is on meta and has no content", name),
          "give an initialiser, or build the module with a factory");
    }
    return tensor;
  };
  return {std::move(graph), std::move(source)};
}

TracedModule trace_module(
    const std::shared_ptr<torch::nn::Module>& module,
    const ModuleSignature& signature,
    Initialiser initialise,
    uint64_t seed) {
  Graph graph = traced_graph(module, signature);
  std::map<std::string, std::string> first_names;
  for (const Value& value : graph.values) {
    for (const std::string& tied : value.tied_names) {
      first_names[tied] = value.name;
    }
  }
  TensorSource source = [tensors = tensors_of(*module), first_names, initialise = std::move(initialise),
                         seed](const std::string& name) {
    const at::Tensor& tensor = tensor_named(tensors, name);
    if (!tensor.is_meta()) {
      return tensor;
    }
    const auto tied = first_names.find(name);
    const std::string& first = tied == first_names.end() ? name : tied->second;
    at::Tensor made = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
    const DefaultGeneratorGuard generator(generator_seed(seed, first));
    initialise(first, made);
    if (!made.defined() || made.sizes() != tensor.sizes() || made.scalar_type() != tensor.scalar_type()) {
      throw_usage("the initialiser replaced \"{}\" by a tensor of another shape or dtype", first);
    }
    return made.detach();
  };
  return {std::move(graph), std::move(source)};
}

TracedModule trace_module(const DeferredModule& module, const ModuleSignature& signature, uint64_t seed) {
  return {traced_graph(module.module(), signature), [module, seed](const std::string& name) {
            return module.materialise(name, seed);
          }};
}

}  // namespace shardpipe::trace
