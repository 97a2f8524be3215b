#include "shardpipe/engine.h"

#include <algorithm>

#include "api/artefact.h"
#include "api/impl.h"
#include "api/planning.h"
#include "base/error.h"
#include "base/log.h"
#include "frontend/hf/inputs.h"
#include "generate/session.h"
#include "plan/layout_json.h"
#include "runtime/shared_state.h"

namespace shardpipe {

const LayoutOptions& Plan::layout() const {
  return impl_->plan.layout;
}

int64_t Plan::parameter_bytes(int stage) const {
  return impl_->plan.parameter_bytes({stage});
}

std::map<std::string, TensorPin> read_tp_plan(const std::filesystem::path& file) {
  const Json json = read_json(file, {.comments = true, .refuse_duplicate_keys = true});
  return plan::tp_plan_from_json(json, file.string());
}

Plan make_plan(const Model& model, World& world, const PlanOptions& options, const NamedTensors& example) {
  comm::World& ranks = world.impl().world;
  std::string bytes;
  Plan result;
  if (model.impl().artefact) {
    result.impl_ = std::make_shared<Plan::Impl>(load_plan(model, ranks, options));
    return result;
  }
  runtime::TensorSource tensors = model.impl().tensors();  // a module is traced on every rank: it is in no file
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
    const bool generates = options.program == ModelProgram::generation && model.impl().is_folder();
    PlanOptions chosen = options;
    chosen.threads = threads_of_rank(options.threads, ranks.local_world_size());
    plan::Plan planned = plan_for(model, chosen, example);
    const std::optional<int64_t> start = generates ? model.decoder_start_token_id() : std::nullopt;
    result.impl_ = std::make_shared<Plan::Impl>(Plan::Impl{
        std::move(planned), model.impl().input_check(options.program), model.impl().optional_inputs(options.program),
        tensors, start});
    bytes = plan::serialize(result.impl_->plan);
  }
  ranks.broadcast(bytes, 0);
  if (ranks.rank() != 0) {
    result.impl_ = std::make_shared<Plan::Impl>(
        Plan::Impl{plan::parse(bytes, "the plan of rank 0"), {}, {}, std::move(tensors), {}});
  }
  connect(ranks, result.impl_->plan);
  return result;
}

Plan make_plan(const Model& model, World& world, const PlanOptions& options) {
  return make_plan(model, world, options, {});
}

Engine::Engine(const Plan& plan, World& world) : impl_(std::make_unique<Impl>(plan.impl(), world.impl().world)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

RunResult Engine::run(const NamedTensors& inputs, const RunOptions& options) {
  const plan::Plan& plan = impl_->engine.plan();
  if (has_caches(plan)) {
    throw Error(
        ErrorCode::usage, "a program that generates, with caches of its own, is not run on a batch of tensors",
        "use generate, or plan ModelProgram::forward");
  }
  NamedTensors given = inputs;
  hf::add_optional_inputs(impl_->optional_inputs, given);
  runtime::BatchResult result = runtime::run_batch(impl_->engine, given, options, impl_->check);
  return {std::move(result.outputs), std::move(result.gradients), result.microbatches, result.stats};
}

void Engine::reset_state() {
  impl_->engine.reset_shared_states();
}

NamedTensors Engine::state() {
  return runtime::gather_state(impl_->engine);
}

void Engine::set_state(const NamedTensors& state) {
  runtime::scatter_state(impl_->engine, state, {});
}

void Engine::save_state(const std::filesystem::path& file) {
  const NamedTensors gathered = state();
  if (impl_->world.rank() == 0) {
    write_tensors(file, gathered);
  }
}

void Engine::load_state(const std::filesystem::path& file) {
  NamedTensors given;
  if (impl_->world.rank() == 0) {
    given = read_tensors(file);
  }
  runtime::scatter_state(impl_->engine, given, file.string());
}

void Engine::Impl::check_run(const NamedTensors& inputs, const RunOptions& options) const {
  NamedTensors given = inputs;
  hf::add_optional_inputs(optional_inputs, given);
  runtime::check_batch(engine.plan(), given, options, check);
}

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
  comm::World& ranks = engine.impl().world;
  std::string bytes;
  if (!has_caches(stage.plan())) {
    throw Error(ErrorCode::usage, "a program without caches does not generate", "plan ModelProgram::generation");
  }
  if (ranks.rank() == 0) {
    if (options.max_new_tokens < 1) {
      throw_usage("--max-new-tokens is {}, must be at least 1", options.max_new_tokens);
    }
    const LayoutOptions& layout = stage.plan().layout;
    const auto rows = (static_cast<int>(prompts.size()) + layout.dp - 1) / layout.dp;  // of a replica
    const int wanted = stage.plan().default_microbatches();
    const int lanes = std::max(1, std::min(wanted, rows));
    if (lanes < layout.chunks) {
      log_warning("--chunks {} lowered to {}: there are no more prompts", layout.chunks, lanes);
    }
    bytes = generation::serialize(
        generation::Request{prompts, engine.impl().decoder_start, options, lanes, tokenizer_folder});
  }
  ranks.broadcast(bytes, 0);
  return generation::generate(stage, generation::parse_request(bytes), on_token);
}

}  // namespace shardpipe
