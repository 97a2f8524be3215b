// From a model as its user has it to what the planner needs.
#include "api/artefact.h"
#include "api/impl.h"
#include "base/error.h"
#include "checkpoint/names.h"
#include "frontend/hf/inputs.h"
#include "frontend/pt2/signature.h"

namespace shardpipe {
namespace {

// Finds each weight of the model in the checkpoint, by names alone: a missing one is refused before any rank loads.
std::map<std::string, plan::WeightSource> find_weights(const hf::FolderModel& model, const graph::Graph& graph) {
  const auto checkpoint = checkpoint::Checkpoint::open_folder(model.folder);
  std::vector<checkpoint::WantedTensor> wanted;
  for (const graph::ValueId id : graph.used_tensors()) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    if (value.kind == graph::ValueKind::parameter ||
        (value.kind == graph::ValueKind::buffer && !value.content.defined())) {
      wanted.push_back(
          {value.name, graph::evaluate(value.shape.value(), {}),
           value.kind == graph::ValueKind::parameter ? checkpoint::WantedKind::parameter
                                                     : checkpoint::WantedKind::buffer});
    }
  }
  const checkpoint::Resolution found = checkpoint::resolve_names(*checkpoint, wanted, model.names);
  checkpoint::warn_of_surplus(found, *checkpoint);
  std::map<std::string, plan::WeightSource> sources;
  for (const auto& [name, source] : found.source) {
    sources[name] = {0, source};
  }
  return sources;
}

at::ScalarType dtype_of(const graph::Graph& graph) {
  for (const graph::Value& value : graph.values) {
    if (value.kind == graph::ValueKind::parameter && value.dtype && c10::isFloatingType(*value.dtype)) {
      return *value.dtype;
    }
  }
  return at::kFloat;
}

plan::ModelDescription describe_exported(
    const pt2::ExportedModel& model, const std::filesystem::path& weights, std::string* missing_weights) {
  plan::ModelDescription description;
  description.family = "exported";
  description.graph = model.graph;
  description.checkpoints = {model.path.string()};
  std::shared_ptr<const checkpoint::Checkpoint> beside;
  if (!weights.empty()) {
    beside = checkpoint::Checkpoint::open(weights);
    description.checkpoints.push_back(weights.string());
  }
  try {
    for (const auto& [name, source] : pt2::find_weights(model, beside.get())) {
      description.weights[name] = {source.beside ? 1 : 0, source.name};
    }
  } catch (const Error& error) {
    if (missing_weights == nullptr || beside != nullptr) {
      throw;
    }
    *missing_weights = error.message();
  }
  description.frozen = {model.frozen.begin(), model.frozen.end()};
  description.dtype = dtype_of(model.graph);
  return description;
}

plan::ModelDescription describe_module(const ModuleModel& module) {
  plan::ModelDescription description;
  description.family = "module";
  description.graph = module.traced.graph;
  description.dtype = dtype_of(description.graph);
  description.pins = module.pins;
  return description;
}

}  // namespace

plan::ModelDescription Model::Impl::describe(ModelProgram program, std::string* missing_weights) const {
  if (trace_module) {
    return describe_module(module());
  }
  if (is_exported) {
    return describe_exported(exported(), weights, missing_weights);
  }
  const hf::FolderModel& model = loaded(program);
  plan::ModelDescription description{model.family, model.graph, model.dtype, {model.folder.string()}, {}, {}, {}};
  if (missing_weights != nullptr) {
    *missing_weights = checkpoint::missing_files(model.folder);
  }
  if (missing_weights == nullptr || missing_weights->empty()) {
    description.weights = find_weights(model, model.graph);
  }
  return description;
}

void Model::Impl::check_program(ModelProgram program, bool gradients) const {
  if (is_exported && program == ModelProgram::generation) {
    loaded(program);  // says that there is none
  } else if (artefact) {
    find_program(*artefact, folder, program, gradients);
  } else {
    describe(program);
  }
}

runtime::InputCheck Model::Impl::input_check(ModelProgram program) const {
  if (is_module()) {
    return {};
  }
  if (!is_exported) {
    loaded(program);
    return [model = loaded_[program]](const std::map<std::string, at::Tensor>& inputs) {
      hf::check_inputs(*model, inputs);
    };
  }
  exported();
  return [model = exported_](const std::map<std::string, at::Tensor>& inputs) { pt2::check_inputs(*model, inputs); };
}

std::vector<hf::OptionalInput> Model::Impl::optional_inputs(ModelProgram program) const {
  return !is_folder() ? std::vector<hf::OptionalInput>() : loaded(program).optional_inputs;
}

std::map<std::string, pt2::DimensionRange> Model::Impl::ranges() const {
  return is_exported ? exported().ranges : std::map<std::string, pt2::DimensionRange>();
}

runtime::TensorSource Model::Impl::tensors() const {
  return trace_module ? module().traced.tensors : runtime::TensorSource();
}

const ModuleModel& Model::Impl::module() const {
  const std::scoped_lock lock(mutex_);
  if (!module_) {
    module_ = std::make_shared<const ModuleModel>(trace_module());
  }
  return *module_;
}

const pt2::ExportedModel& Model::Impl::exported() const {
  const std::scoped_lock lock(mutex_);
  if (!exported_) {
    exported_ = std::make_shared<const pt2::ExportedModel>(
        artefact ? pt2::signature_from_json(artefact->programs.front().signature, (folder / kManifestFile).string())
                 : pt2::load_exported(folder));
  }
  return *exported_;
}

}  // namespace shardpipe
