#pragma once

// What stands behind the public classes of include/shardpipe.
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>

#include "comm/world.h"
#include "frontend/hf/model.h"
#include "plan/plan.h"
#include "runtime/engine.h"
#include "shardpipe/engine.h"
#include "shardpipe/model.h"
#include "shardpipe/world.h"

namespace shardpipe {

struct Model::Impl {
  std::filesystem::path folder;  // absolute
  std::optional<at::ScalarType> dtype;

  /// Reads the configs and traces, once, when first asked: only the rank that plans pays for it.
  const hf::FolderModel& loaded() const;

 private:
  mutable std::mutex mutex_;
  mutable std::unique_ptr<const hf::FolderModel> loaded_;
};

struct World::Impl {
  explicit Impl(comm::World made) : world(std::move(made)) {}
  comm::World world;
};

struct Plan::Impl {
  plan::Plan plan;
};

struct Engine::Impl {
  Impl(const plan::Plan& plan, comm::World& world) : engine(plan, world) {}
  runtime::Engine engine;
};

}  // namespace shardpipe
