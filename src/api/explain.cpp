#include "shardpipe/explain.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <tuple>

#include "api/impl.h"
#include "api/planning.h"
#include "base/error.h"
#include "comm/link.h"
#include "frontend/hf/inputs.h"
#include "generate/lanes.h"
#include "generate/sampler.h"
#include "graph/device.h"
#include "kernels/threads_guard.h"
#include "plan/explain.h"
#include "plan/profile.h"
#include "plan/rates.h"
#include "runtime/axis_group.h"

namespace shardpipe {

struct Explanation::Impl {
  plan::Explanation explanation;
};

namespace {

constexpr int64_t kMostRows = 1 << 20;

void check_size(const char* what, int64_t value, int64_t lowest) {
  if (value < lowest || value > kMostRows) {
    throw_usage("{} is {}, must be {} to {}", what, value, std::max<int64_t>(lowest, 1), kMostRows);
  }
}

void check(const ExplainOptions& options, const std::string& device) {
  if (options.profile && graph::device_type(device) != at::kCPU) {
    throw Error(
        ErrorCode::usage, fmt::format("--profile times layers on the CPU, not on --device {}", device),
        "leave it out: the costs are then the model's");
  }
  check_size("--batch", options.batch, 0);
  check_size("--prompt-tokens", options.prompt_tokens, 0);
  check_size("--new-tokens", options.new_tokens, 0);
  for (const auto& [name, size] : options.sizes) {
    check_size(fmt::format("--size {}", name).c_str(), size, 1);
  }
}

// With the numbers of tokens that are not given.
ExplainOptions completed(const Model& model, ExplainOptions options) {
  constexpr int64_t kPromptTokens = 128;
  constexpr int64_t kNewTokens = 32;
  const int64_t most = model.max_positions();
  if (options.new_tokens == 0) {
    options.new_tokens = std::clamp<int64_t>(most / 2, 1, kNewTokens);
  }
  if (options.prompt_tokens == 0) {
    options.prompt_tokens = std::clamp<int64_t>(most - options.new_tokens, 1, kPromptTokens);
  }
  return options;
}

// Seconds that choosing the tokens of so many rows takes.
double measure_choice(const Model& model, const plan::Plan& plan, int64_t rows, int threads) {
  constexpr int kRounds = 7;
  const c10::InferenceMode inference;
  const kernels::ThreadsGuard guard(threads);
  const int64_t some = std::min<int64_t>(rows, 8);
  const std::vector<int64_t> prompt = {0};
  generation::Row row;
  row.prompt = &prompt;
  const generation::Sampler sampler({}, nullptr);
  const at::Tensor logits = at::zeros({some, model.vocab_size()}, plan.dtype);
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    sampler.choose(logits, std::vector<const generation::Row*>(static_cast<size_t>(some), &row));
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return plan::median(std::move(seconds)) * static_cast<double>(rows) / static_cast<double>(some);
}

// The steps of generation: the prompts of a request, then a token for each row, half of the new ones being there.
std::vector<plan::Step> generation_steps(
    const Model& model, const plan::Plan& plan, int threads, const ExplainOptions& options, int64_t rows) {
  const int lanes = static_cast<int>(std::min<int64_t>(rows, plan.default_microbatches()));
  generation::StepSize size;
  size.rows = (rows + lanes - 1) / lanes;
  size.prompt_tokens = options.prompt_tokens;
  size.source_tokens = options.prompt_tokens;
  // A decoder with an encoder starts with one token.
  const bool has_source = plan.graph.find("source_ids") != graph::kNoValue;
  size.capacity = (has_source ? 1 : options.prompt_tokens) + options.new_tokens - 1;
  generation::StepExample prefill = generation::step_example(plan.graph, size);
  std::vector<plan::Step> steps = {{"prefill", lanes, 1, std::move(prefill.inputs), std::move(prefill.sizes)}};
  if (options.new_tokens > 1) {
    size.generated = std::max<int64_t>(1, options.new_tokens / 2);
    generation::StepExample decode = generation::step_example(plan.graph, size);
    steps.push_back({"decode", lanes, options.new_tokens - 1, std::move(decode.inputs), std::move(decode.sizes)});
  }
  const double choice = measure_choice(model, plan, size.rows, threads);
  for (plan::Step& step : steps) {
    step.choice_s = choice;
  }
  return steps;
}

// Zeros for every input of the program, where there is no example.
NamedTensors make_inputs(const plan::Plan& plan, const ExplainOptions& options) {
  const graph::Graph& graph = plan.graph;
  graph::Dimensions sizes;
  for (const auto& [name, size] : options.sizes) {
    if (std::find(graph.dimensions.begin(), graph.dimensions.end(), name) == graph.dimensions.end()) {
      throw_usage(
          "--size names \"{}\": the program has {}", name,
          graph.dimensions.empty() ? "no named dimension"
                                   : fmt::format("the named dimensions {}", fmt::join(graph.dimensions, ", ")));
    }
    sizes[name] = size;
  }
  const std::string batch = runtime::batch_dimension(graph);
  if (!batch.empty()) {
    sizes.try_emplace(batch, options.batch > 0 ? options.batch : plan.default_microbatches() * plan.layout.dp);
  }
  sizes = partition::with_unknown(graph, std::move(sizes));
  NamedTensors inputs;
  for (const graph::ValueId id : graph.inputs) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    inputs.emplace_back(value.name, plan::zeros(value, sizes));
  }
  return inputs;
}

// The one step of another program: a forward of each microbatch.
std::vector<plan::Step> forward_steps(const plan::Plan& plan, const NamedTensors& inputs) {
  const runtime::BatchRequest request = runtime::request_batch(plan, inputs, {});
  plan::Step step{"forward", request.by_replica.front(), 1, {}, {}};
  step.joins_outputs = true;
  for (const auto& [name, tensor] : inputs) {
    step.inputs[name] = runtime::chunk_of(tensor, request.inputs.at(name), request, 0);
  }
  step.sizes = plan::dimensions_of(plan.graph, step.inputs);
  return {step};
}

// What the planned model costs on this machine, measured when first asked for.
class Pricing {
 public:
  Pricing(const plan::Plan& plan, const runtime::TensorSource& tensors, bool profile)
      : plan_(plan), tensors_(tensors), profile_(profile) {}

  const partition::Rates& rates(int threads) {
    const auto [found, made] = rates_.try_emplace(threads);
    if (made) {
      const bool chosen = plan_.kernels == "auto";
      found->second = plan::measure_rates(plan_.dtype, threads, chosen ? std::optional(plan_.choice) : std::nullopt);
      if (plan_.layout.pp > 1) {
        if (!link_) {
          link_ = comm::measure_link(plan_.layout.pp * columns());
        }
        found->second.message_seconds = link_->message_seconds;
        found->second.message_busy_seconds = link_->busy_seconds;
        found->second.transfer_bytes_per_second = link_->bytes_per_second;
      }
    }
    return found->second;
  }

  plan::StepCosts costs(const plan::Step& step, int pp, int threads) {
    const graph::Dimensions sizes = plan::dimensions_of(plan_.graph, step.inputs, step.sizes);
    // Those that the cores are enough for; where there are more ranks, these are what works at a time.
    const int ranks = std::clamp((num_cores() + threads - 1) / threads, 1, pp * columns());
    if (profile_) {
      const plan::Profile& profile = measure(step, sizes, threads, ranks);
      return {profile.costs, profile.together / columns()};
    }
    const partition::Costs alone = partition::cost_model(plan_.graph, sizes, rates(threads));
    const partition::Costs shared =
        partition::cost_model(plan_.graph, sizes, plan::shared_rates(rates(threads), rates(num_cores()), ranks));
    const auto sum = [](const std::vector<double>& all) { return std::accumulate(all.begin(), all.end(), 0.0); };
    const double slower = sum(alone.compute) > 0 ? sum(shared.compute) / sum(alone.compute) : 1;
    return {alone, std::max(1.0, ranks / slower) / columns()};
  }

 private:
  // Ranks with the same stage.
  int columns() const { return std::max(1, plan_.layout.dp) * std::max(1, plan_.layout.tp); }

  const plan::Profile& measure(const plan::Step& step, const graph::Dimensions& sizes, int threads, int ranks) {
    const auto [found, made] = measured_.try_emplace({step.name, sizes, threads, ranks});
    if (made) {
      const kernels::ThreadsGuard guard(threads);
      const runtime::Weights weights(plan_, tensors_);
      runtime::LonePart part(plan_.layout.tp, plan_.part);
      found->second = plan::measure_costs(
          plan_.graph, step.inputs, sizes, [&](const graph::Value& value) { return weights.load(value); }, ranks,
          &part);
    }
    return found->second;
  }

  const plan::Plan& plan_;
  const runtime::TensorSource& tensors_;
  bool profile_;
  std::map<int, partition::Rates> rates_;
  std::optional<comm::Link> link_;
  std::map<std::tuple<std::string, graph::Dimensions, int, int>, plan::Profile> measured_;
};

// Asks for the costs that decide the cuts once.
plan::CostFunction remembered(const plan::CostFunction& costs) {
  return [costs, known = std::make_shared<std::optional<partition::Costs>>()](const plan::Plan& plan) {
    if (!*known) {
      *known = costs(plan);
    }
    return **known;
  };
}

ModelProgram program_of(const Model& model, const PlanOptions& options) {
  const bool wants = options.program == ModelProgram::generation && model.impl().is_folder();
  return wants && !hf::generates(model.folder()) ? ModelProgram::forward : options.program;
}

void check_missing(const std::string& missing, bool profile) {
  if (profile && !missing.empty()) {
    throw Error(
        ErrorCode::input, fmt::format("--profile runs the layers, and the weights are missing: {}", missing),
        "leave out --profile: the costs are then the model's");
  }
}

}  // namespace

Explanation explain(
    const Model& model, const PlanOptions& options, const ExplainOptions& explain_options, const NamedTensors& inputs) {
  check(explain_options, options.device);
  if (model.impl().artefact) {
    throw Error(
        ErrorCode::usage, fmt::format("{} is an artefact, which is planned", model.folder().string()),
        "give the model that it was compiled from, and the layout");
  }
  PlanOptions chosen = options;
  chosen.program = program_of(model, options);
  const int columns = std::max(1, options.layout.dp) * std::max(1, options.layout.tp);
  const auto threads = [&](int pp) { return threads_of_rank(options.threads, pp * columns); };
  chosen.threads = threads(options.layout.pp);

  plan::Forecast forecast;
  const plan::ModelDescription description = model.impl().describe(chosen.program, &forecast.missing_weights);
  check_missing(forecast.missing_weights, explain_options.profile || options.layout.profile);
  const runtime::TensorSource tensors = model.impl().tensors();
  const plan::CostFunction cut_costs = remembered(cost_function(tensors, chosen, inputs));
  const plan::Plan plan = plan::make_plan(description, chosen, cut_costs);
  const bool generates = has_caches(plan);
  const ExplainOptions asked = generates ? completed(model, explain_options) : explain_options;

  NamedTensors given = inputs;
  if (generates) {
    if (!inputs.empty() || !explain_options.sizes.empty()) {
      throw Error(
          ErrorCode::usage, "inputs and sizes are those of a program other than generation",
          "use the numbers of prompts and tokens");
    }
    model.check_prompts({std::vector<int64_t>(static_cast<size_t>(asked.prompt_tokens), 0)}, asked.new_tokens);
  } else if (given.empty()) {
    given = make_inputs(plan, explain_options);
  } else {
    if (explain_options.batch > 0 || !explain_options.sizes.empty()) {
      throw Error(
          ErrorCode::usage, "--batch and --size are for a plan without --inputs, which have sizes of their own",
          "leave them out");
    }
    hf::add_optional_inputs(model.impl().optional_inputs(chosen.program), given);
  }
  if (const runtime::InputCheck input_check = model.impl().input_check(chosen.program); !generates && input_check) {
    input_check({given.begin(), given.end()});
  }

  Pricing pricing(plan, tensors, explain_options.profile);
  forecast.model = explain_options.name.empty() ? model.folder().string() : explain_options.name;
  forecast.program = generates ? "generation" : "forward";
  forecast.profile = explain_options.profile;
  forecast.cores = num_cores();
  forecast.threads = threads;
  const int64_t dp = plan.layout.dp;
  const int64_t rows =  // of the replica that has most
      explain_options.batch > 0 ? (explain_options.batch + dp - 1) / dp : plan.default_microbatches();
  forecast.steps = [&](const plan::Plan& of) {
    return generates ? generation_steps(model, of, threads(of.layout.pp), asked, rows) : forward_steps(of, given);
  };
  forecast.costs = [&](const plan::Step& step, int pp, int of_threads) { return pricing.costs(step, pp, of_threads); };
  forecast.rates = [&](int of_threads) { return pricing.rates(of_threads); };
  forecast.outline = [&](int pp) -> std::optional<plan::Plan> {
    try {
      return plan::outline(plan, chosen, pp, cut_costs);
    } catch (const Error&) {
      return std::nullopt;  // the policy does not cut into so many
    }
  };
  Explanation result;
  result.impl_ = std::make_shared<const Explanation::Impl>(Explanation::Impl{plan::explain(plan, forecast)});
  return result;
}

std::string Explanation::json() const {
  return plan::to_json(impl_->explanation).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Explanation::text() const {
  return plan::to_text(impl_->explanation);
}

std::string Explanation::html() const {
  return plan::to_html(impl_->explanation);
}

}  // namespace shardpipe
