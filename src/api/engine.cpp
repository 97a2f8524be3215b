#include "shardpipe/engine.h"

#include <algorithm>
#include <thread>

#include "api/impl.h"
#include "base/error.h"
#include "base/log.h"
#include "checkpoint/names.h"
#include "generate/session.h"

namespace shardpipe {
namespace {

// Finds each weight of the model in the checkpoint, by names alone: a missing one is refused before any rank loads.
std::map<std::string, std::string> find_weights(const hf::FolderModel& model, graph::Graph& graph) {
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
  return found.source;
}

int default_threads(const comm::World& world) {
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return std::max(1, cores / world.local_world_size());
}

}  // namespace

const LayoutOptions& Plan::layout() const {
  return impl_->plan.layout;
}

int64_t Plan::parameter_bytes(int stage) const {
  return impl_->plan.parameter_bytes(stage);
}

Plan make_plan(const Model& model, World& world, const PlanOptions& options) {
  comm::World& ranks = world.impl().world;
  std::string bytes;
  Plan result;
  if (ranks.rank() == 0) {
    const mesh::Mesh mesh(options.layout.pp, options.layout.dp, options.layout.tp);
    if (mesh.world_size() != ranks.size()) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "--pp {} x --dp {} x --tp {} is {} ranks, this job has {}", options.layout.pp, options.layout.dp,
              options.layout.tp, mesh.world_size(), ranks.size()),
          "start as many processes as the layout has ranks");
    }
    const hf::FolderModel& loaded = model.impl().loaded();
    plan::ModelDescription description{loaded.folder.string(), loaded.family, loaded.graph, loaded.dtype, {}};
    description.weights = find_weights(loaded, description.graph);
    PlanOptions chosen = options;
    if (chosen.threads < 0) {
      throw_usage("--threads is {}, must be at least 1", chosen.threads);
    }
    chosen.threads = chosen.threads == 0 ? default_threads(ranks) : chosen.threads;
    result.impl_ = std::make_shared<Plan::Impl>(Plan::Impl{plan::make_plan(description, chosen)});
    bytes = plan::serialize(result.impl_->plan);
  }
  ranks.broadcast(bytes, 0);
  if (ranks.rank() != 0) {
    result.impl_ = std::make_shared<Plan::Impl>(Plan::Impl{plan::parse(bytes, "the plan of rank 0")});
  }
  ranks.create_groups(result.impl_->plan.mesh());
  return result;
}

Engine::Engine(const Plan& plan, World& world) : impl_(std::make_unique<Impl>(plan.impl().plan, world.impl().world)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

int64_t Engine::parameter_bytes() const {
  return impl_->engine.parameter_bytes();
}

int64_t Engine::resident_weight_bytes() const {
  return impl_->engine.resident_weight_bytes();
}

GenerateResult generate(
    Engine& engine,
    const std::vector<std::vector<int64_t>>& prompts,
    const GenerateOptions& options,
    const TokenCallback& on_token,
    const std::string& tokenizer_folder) {
  runtime::Engine& stage = engine.impl().engine;
  comm::World& ranks = stage.world();
  std::string bytes;
  if (ranks.rank() == 0) {
    if (options.max_new_tokens < 1) {
      throw_usage("--max-new-tokens is {}, must be at least 1", options.max_new_tokens);
    }
    const auto rows = static_cast<int>(prompts.size());
    const LayoutOptions& layout = stage.plan().layout;
    const int wanted = layout.chunks > 0 ? layout.chunks : layout.pp;
    const int lanes = std::max(1, std::min(wanted, rows));
    if (lanes < layout.chunks) {
      log_warning("--chunks {} lowered to {}: there are no more prompts", layout.chunks, lanes);
    }
    bytes = generation::serialize(generation::Request{prompts, options, lanes, tokenizer_folder});
  }
  ranks.broadcast(bytes, 0);
  return generation::generate(stage, generation::parse_request(bytes), on_token);
}

}  // namespace shardpipe
