#pragma once

// What stands behind the public classes of include/shardpipe.
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "api/manifest.h"
#include "comm/world.h"
#include "frontend/hf/model.h"
#include "frontend/pt2/exported.h"
#include "frontend/trace/module.h"
#include "plan/plan.h"
#include "runtime/batch_run.h"
#include "shardpipe/engine.h"
#include "shardpipe/model.h"
#include "shardpipe/world.h"

namespace shardpipe {

/// A module of the user's own.
struct ModuleModel {
  trace::TracedModule traced;
  std::vector<tensor::PinRule> pins;  ///< those of its layers
};

struct Model::Impl {
  std::filesystem::path folder;  // or file; absolute
  std::optional<at::ScalarType> dtype;
  bool is_exported = false;
  std::filesystem::path weights;              // absolute, or empty
  std::function<ModuleModel()> trace_module;  // of a module of the user's own
  std::shared_ptr<const Manifest> artefact;   // of a compiled model

  bool is_module() const { return trace_module || (artefact && artefact->source == Manifest::Source::module); }
  bool is_folder() const { return !is_exported && !is_module(); }
  /// A folder's program. Reads the configs and traces, once, when first asked: only the rank that plans pays for it.
  const hf::FolderModel& loaded(ModelProgram program = ModelProgram::generation) const;
  /// An exported program; of an artefact what check_inputs needs of it.
  const pt2::ExportedModel& exported() const;
  /// Throws what make_plan would throw about the program itself.
  void check_program(ModelProgram program, bool gradients) const;
  /// What the planner needs; checks that the weights are there. With `missing_weights` files that are not there are
  /// no error: it says which, and the description names no weights.
  plan::ModelDescription describe(ModelProgram program, std::string* missing_weights = nullptr) const;
  /// What checks the inputs of a call.
  runtime::InputCheck input_check(ModelProgram program) const;
  /// Inputs of a call that may be left out.
  std::vector<hf::OptionalInput> optional_inputs(ModelProgram program) const;
  /// Limits of an exported program's named dimensions.
  std::map<std::string, pt2::DimensionRange> ranges() const;
  /// Where the tensors of a module come from, on every rank; empty for models in files.
  runtime::TensorSource tensors() const;

 private:
  const ModuleModel& module() const;
  hf::FolderModel load_folder(ModelProgram program) const;

  mutable std::mutex mutex_;
  mutable std::map<ModelProgram, std::shared_ptr<const hf::FolderModel>> loaded_;
  mutable std::shared_ptr<const pt2::ExportedModel> exported_;
  mutable std::shared_ptr<const ModuleModel> module_;
};

struct World::Impl {
  explicit Impl(comm::World made) : world(std::move(made)) {}
  comm::World world;
};

struct Plan::Impl {
  plan::Plan plan;
  /// On the rank that planned: checks inputs beyond what the graph says.
  runtime::InputCheck check = {};
  std::vector<hf::OptionalInput> optional_inputs = {};
  runtime::TensorSource tensors = {};                   ///< on every rank
  std::optional<int64_t> decoder_start = std::nullopt;  ///< on the rank that planned
};

struct Engine::Impl {
  Impl(const Plan::Impl& made, comm::World& ranks)
      : world(ranks),
        check(made.check),
        optional_inputs(made.optional_inputs),
        decoder_start(made.decoder_start),
        tensors(made.tensors),
        engine(made.plan, runtime::seat_of(ranks), made.tensors) {}
  /// What run() checks before anything is sent.
  void check_run(const NamedTensors& inputs, const RunOptions& options) const;

  comm::World& world;
  runtime::InputCheck check;
  std::vector<hf::OptionalInput> optional_inputs;
  std::optional<int64_t> decoder_start;
  runtime::TensorSource tensors;
  runtime::Engine engine;
};

}  // namespace shardpipe
