#pragma once

// What stands behind the public classes of include/shardpipe.
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>

#include "comm/world.h"
#include "frontend/hf/model.h"
#include "frontend/pt2/exported.h"
#include "plan/plan.h"
#include "runtime/batch_run.h"
#include "shardpipe/engine.h"
#include "shardpipe/model.h"
#include "shardpipe/world.h"

namespace shardpipe {

struct Model::Impl {
  std::filesystem::path folder;  // or file; absolute
  std::optional<at::ScalarType> dtype;
  bool is_exported = false;
  std::filesystem::path weights;  // absolute, or empty

  /// Reads the configs and traces, once, when first asked: only the rank that plans pays for it.
  const hf::FolderModel& loaded() const;
  /// What the planner needs; checks that the weights are there.
  plan::ModelDescription describe() const;
  /// What checks the inputs of a call; none for a folder.
  runtime::InputCheck input_check() const;

 private:
  const pt2::ExportedModel& exported() const;

  mutable std::mutex mutex_;
  mutable std::unique_ptr<const hf::FolderModel> loaded_;
  mutable std::shared_ptr<const pt2::ExportedModel> exported_;
};

struct World::Impl {
  explicit Impl(comm::World made) : world(std::move(made)) {}
  comm::World world;
};

struct Plan::Impl {
  plan::Plan plan;
  /// On the rank that planned: checks inputs beyond what the graph says.
  runtime::InputCheck check = {};
};

struct Engine::Impl {
  Impl(const Plan::Impl& made, comm::World& ranks)
      : world(ranks), check(made.check), engine(made.plan, runtime::seat_of(ranks)) {}
  comm::World& world;
  runtime::InputCheck check;
  runtime::Engine engine;
};

}  // namespace shardpipe
