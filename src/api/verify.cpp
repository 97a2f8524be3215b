#include "shardpipe/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "api/artefact.h"
#include "base/error.h"
#include "base/hash.h"
#include "frontend/hf/inputs.h"
#include "generate/replicas.h"
#include "generate/session.h"
#include "plan/example.h"
#include "runtime/verify.h"

namespace shardpipe {
namespace {

// A plan's tensors as another model of the same structure has them.
struct OtherWeights {
  /// `cut`: the plan of the engine, of which `made` may be the uncut form.
  OtherWeights(const plan::Plan& made, const plan::Plan& cut, const Model& model, ModelProgram program) : plan(made) {
    if (model.impl().artefact) {
      plan.checkpoints.clear();
      plan.weights.clear();
      tensors = artefact_tensors(model, cut);
      return;
    }
    plan::ModelDescription description = model.impl().describe(program);
    plan.checkpoints = std::move(description.checkpoints);
    plan.weights = std::move(description.weights);
    tensors = model.impl().tensors();
  }
  plan::Plan plan;
  runtime::TensorSource tensors;
};

std::pair<std::string, std::string> modules_of(const plan::Plan& plan, int stage) {
  std::pair<std::string, std::string> found;
  for (const graph::Node& node : plan.stages.graphs[static_cast<size_t>(stage)].nodes) {
    if (!node.module.empty()) {
      found.first = found.first.empty() ? node.module : found.first;
      found.second = node.module;
    }
  }
  return found;
}

// The plan in one process, without cuts.
plan::Plan uncut(const plan::Plan& plan) {
  plan::Plan whole = plan;
  whole.layout.pp = 1;
  whole.layout.dp = 1;
  whole.layout.virtual_stages = 1;
  whole.layout.schedule = "fill-drain";
  whole.schedule_csv.clear();
  whole.cuts.clear();
  whole.stages = partition::cut(whole.graph, whole.cuts);
  whole.place_stages();
  return whole;
}

// The undivided program in one process, with the threads and kernels of a plan with tp.
plan::Plan undivided(const plan::Plan& plan, const Model* model, ModelProgram program) {
  if (model == nullptr || model->impl().artefact) {
    throw Error(
        ErrorCode::usage,
        fmt::format(
            "--tp {}: an artefact has only what its ranks run, nothing undivided to compare it with", plan.layout.tp),
        "name the model that it was compiled from: --reference MODEL");
  }
  PlanOptions options;
  options.threads = plan.threads;
  options.device = plan.device;
  options.kernels = plan.kernels;
  options.program = program;
  return plan::make_plan(model->impl().describe(program), options);
}

runtime::TensorSource moved(const plan::Plan& whole, const runtime::TensorSource& tensors) {
  const auto weights = std::make_shared<runtime::Weights>(whole, tensors);
  return [weights, &whole](const std::string& name) {
    const graph::Value& value = whole.graph.values[static_cast<size_t>(whole.graph.find(name))];
    const at::Tensor tensor = weights->load(value);
    return value.kind == graph::ValueKind::parameter ? runtime::perturbed(tensor, fnv1a(name)) : tensor;
  };
}

bool has_token(const Output& output, size_t i, const Output& other) {
  return i < output.token_ids.size() && i < other.token_ids.size() && output.token_ids[i] == other.token_ids[i];
}

double logprob_difference(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b)) ? 0 : std::isnan(a - b) ? HUGE_VAL : std::abs(a - b);
}

// `moved`: with perturbed weights; null where nothing may differ.
void compare(
    const std::vector<Output>& actual,
    const std::vector<Output>& expected,
    const std::vector<Output>* moved,
    Verification& found) {
  for (size_t row = 0; row < expected.size(); ++row) {
    const Output& a = actual[row];
    const Output& b = expected[row];
    ++found.prompts;
    const size_t count = std::max(a.token_ids.size(), b.token_ids.size());
    for (size_t i = 0; i < count; ++i, ++found.tokens) {
      if (moved != nullptr && !has_token((*moved)[row], i, b)) {
        break;
      }
      if (!has_token(a, i, b)) {
        const auto text = [&](const Output& output) {
          return i < output.token_ids.size() ? std::to_string(output.token_ids[i]) : std::string("the end");
        };
        if (found.token_difference.empty()) {
          found.token_difference =
              fmt::format("token {} of prompt {} is {}, in one process {}", i + 1, row + 1, text(a), text(b));
        }
        break;
      }
      found.largest_logprob = std::max(found.largest_logprob, logprob_difference(a.logprobs[i], b.logprobs[i]));
      if (moved != nullptr) {
        found.logprob_bound = std::max(
            found.logprob_bound, runtime::kRoundings * logprob_difference((*moved)[row].logprobs[i], b.logprobs[i]));
      }
    }
  }
}

// What the plan of one process generates, cut as the engine's replicas and lanes cut the prompts.
std::vector<Output> generate_alone(
    Engine::Impl& impl,
    const plan::Plan& whole,
    const runtime::TensorSource& tensors,
    const std::vector<std::vector<int64_t>>& prompts,
    const GenerateOptions& options,
    int lanes) {
  runtime::Seat seat{0, comm::Transport(), &impl.engine.monitor()};
  seat.device = impl.engine.device();
  runtime::Engine alone(whole, std::move(seat), tensors);
  std::vector<Output> outputs;
  const int replicas = impl.engine.plan().layout.dp;
  for (int replica = 0; replica < replicas; ++replica) {
    const auto [first, count] = generation::prompts_of(prompts.size(), replicas, replica);
    const auto begin = prompts.begin() + static_cast<ptrdiff_t>(first);
    if (count > 0) {
      const generation::Request request{
          {begin, begin + static_cast<ptrdiff_t>(count)},
          impl.decoder_start,
          options,
          std::min(lanes, static_cast<int>(count)),
          {}};
      for (Output& output : generation::generate(alone, request).outputs) {
        outputs.push_back(std::move(output));
      }
    }
  }
  return outputs;
}

}  // namespace

bool Verification::equal() const {
  return token_difference.empty() && largest_logprob <= logprob_bound &&
         std::all_of(stages.begin(), stages.end(), [](const auto& stage) { return stage.equal(); });
}

std::string Verification::summary() const {
  for (const StageVerification& stage : stages) {
    if (!stage.equal()) {
      return fmt::format(
          "stage {} on rank {} ({} to {}) differs from one process: {} of {} values, the largest difference is {:.3g} "
          "in {}, at most {:.3g} is right",
          stage.stage, stage.rank, stage.first_module, stage.last_module, stage.differing, stage.values, stage.largest,
          stage.worst, stage.bound);
    }
  }
  if (!token_difference.empty()) {
    return token_difference;
  }
  return largest_logprob <= logprob_bound
             ? ""
             : fmt::format(
                   "log probabilities differ from one process's by up to {:.3g}, at most {:.3g} is right",
                   largest_logprob, logprob_bound);
}

Verification verify(Engine& engine, const NamedTensors& inputs, const RunOptions& options, const Model* reference) {
  Engine::Impl& impl = engine.impl();
  const plan::Plan& plan = impl.engine.plan();
  NamedTensors given = inputs;
  hf::add_optional_inputs(impl.optional_inputs, given);
  const bool masked = plan.graph.find("attention_mask") != graph::kNoValue;
  const ModelProgram program = masked ? ModelProgram::forward_with_mask : ModelProgram::forward;
  std::optional<plan::Plan> whole;
  std::optional<OtherWeights> other;
  std::optional<runtime::Weights> weights;
  runtime::Uncut uncut;
  if (impl.engine.is_first() && plan.layout.tp > 1) {
    whole = undivided(plan, reference, program);
    uncut.plan = &*whole;
    weights.emplace(*whole, reference->impl().tensors());
  } else if (impl.engine.is_first() && reference != nullptr) {
    other.emplace(plan, plan, *reference, program);
    weights.emplace(other->plan, other->tensors);
  }
  if (weights) {
    uncut.load = [&](const graph::Value& value) { return weights->load(value); };
  }
  Verification found;
  const std::vector<runtime::StageCheck> checks = runtime::verify_batch(impl.engine, given, options, impl.check, uncut);
  for (const runtime::StageCheck& check : checks) {
    const auto [first, last] = modules_of(plan, check.stage);
    found.stages.push_back(
        {check.stage, plan.rank_of_stage(check.stage), first, last, check.values, check.differing, check.largest,
         check.bound, check.worst});
  }
  return found;
}

Verification verify(
    Engine& engine,
    const std::vector<std::vector<int64_t>>& prompts,
    const GenerateOptions& options,
    const Model* reference) {
  Engine::Impl& impl = engine.impl();
  const bool divided = impl.engine.plan().layout.tp > 1;
  plan::Plan whole;
  if (impl.engine.is_first()) {
    whole = divided ? undivided(impl.engine.plan(), reference, ModelProgram::generation) : uncut(impl.engine.plan());
  }
  GenerateOptions compared = options;
  compared.logprobs = true;
  const GenerateResult actual = generate(engine, prompts, compared);
  Verification found;
  if (!impl.engine.is_first()) {
    return found;
  }
  const comm::ActionScope action(impl.engine.monitor(), "verify");
  runtime::TensorSource tensors = impl.tensors;
  if (divided) {
    tensors = reference->impl().tensors();
  } else if (reference != nullptr) {
    OtherWeights other(whole, impl.engine.plan(), *reference, ModelProgram::generation);
    whole = std::move(other.plan);
    tensors = std::move(other.tensors);
  }
  const std::vector<Output> expected = generate_alone(impl, whole, tensors, prompts, compared, actual.lanes);
  std::vector<Output> others;
  if (divided) {
    plan::Plan sourceless = whole;
    sourceless.checkpoints.clear();
    sourceless.weights.clear();
    others = generate_alone(impl, sourceless, moved(whole, tensors), prompts, compared, actual.lanes);
  }
  found.chunks = actual.lanes;
  compare(actual.outputs, expected, divided ? &others : nullptr, found);
  return found;
}

NamedTensors example_inputs(const Plan& plan, const Model& model, int64_t rows, uint64_t seed) {
  const graph::Graph& graph = plan.impl().plan.graph;
  const std::map<std::string, pt2::DimensionRange> ranges = model.impl().ranges();
  const std::string batch = runtime::batch_dimension(graph);
  const std::map<std::string, int64_t> limits = plan::index_limits(graph);
  std::string refused;
  for (const int64_t size : std::array<int64_t, 10>{8, 4, 16, 2, 12, 32, 3, 64, 224, 1}) {
    graph::Dimensions dimensions;
    for (const std::string& name : graph.dimensions) {
      const auto range = ranges.find(name);
      int64_t value = name == batch ? rows : size;
      if (range != ranges.end()) {
        value = std::max(value, range->second.min);
        value = range->second.max ? std::min(value, *range->second.max) : value;
      }
      dimensions[name] = value;
    }
    NamedTensors inputs = plan::random_inputs(graph, dimensions, limits, seed);
    try {
      if (plan.impl().check) {
        plan.impl().check({inputs.begin(), inputs.end()});
      }
      return inputs;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::usage) {
        throw;
      }
      refused = error.message();
    }
  }
  throw Error(
      ErrorCode::usage, fmt::format("the program refuses the inputs that were made for it: {}", refused),
      "give inputs: --inputs FILE.safetensors");
}

}  // namespace shardpipe
