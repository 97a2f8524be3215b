#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "layout_options.h"
#include "prompts.h"
#include "report.h"
#include "shardpipe/artefact.h"
#include "shardpipe/verify.h"

namespace shardpipe::cli {
namespace {

struct Options {
  RunOptions run;
  PromptOptions prompts;
  std::string tokenizer;
  std::string weights;
  std::string inputs;
  std::string reference;
  int64_t max_new_tokens = 8;
  int64_t rows = 0;
  uint64_t seed = 0;
  bool json = false;
};

bool has_prompts(const Options& options) {
  return !options.prompts.prompts.empty() || !options.prompts.file.empty() || !options.prompts.input_ids.empty();
}

Model open_reference(const Options& options, bool first_rank) {
  RunOptions other = options.run;
  other.model = options.reference;
  return open_model(other, options.weights, first_rank);
}

Json describe(const StageVerification& stage) {
  return {
      {"stage", stage.stage},
      {"rank", stage.rank},
      {"first_module", stage.first_module},
      {"last_module", stage.last_module},
      {"values", stage.values},
      {"differing", stage.differing},
      {"largest_difference", stage.largest},
      {"bound", stage.bound},
      {"equal", stage.equal()},
      {"worst", stage.worst}};
}

void print(const Verification& found) {
  for (const StageVerification& stage : found.stages) {
    write(fmt::format(
        "stage {} on rank {} ({} to {}): {}\n", stage.stage, stage.rank, stage.first_module, stage.last_module,
        stage.equal()
            ? stage.bound == 0 ? fmt::format("{} values equal", stage.values)
                               : fmt::format(
                                     "{} values agree, the largest difference is {:.3g}, at most {:.3g} is right",
                                     stage.values, stage.largest, stage.bound)
            : fmt::format("{} of {} values differ, by up to {:.3g}", stage.differing, stage.values, stage.largest)));
  }
  if (found.prompts > 0) {
    write(fmt::format(
        "{} tokens of {} prompts: {}\n", found.tokens, found.prompts,
        found.token_difference.empty()
            ? found.largest_logprob == 0
                  ? "equal, and so are their log probabilities"
                  : fmt::format(
                        "equal, log probabilities differ by up to {:.3g}, at most {:.3g} is right",
                        found.largest_logprob, found.logprob_bound)
            : found.token_difference));
  }
}

// A batch of tensors: what every stage computes.
Verification verify_batch(
    const Options& options, const Model& model, World& world, const Model* reference, Json& layout) {
  const bool first = world.rank() == 0;
  NamedTensors inputs;
  if (first && !options.inputs.empty()) {
    inputs = read_tensors(options.inputs);
  }
  PlanOptions planning = options.run.plan;
  planning.program = forward_program(inputs);
  const Plan plan = make_plan(model, world, planning, inputs);
  if (first && options.inputs.empty()) {
    const LayoutOptions& made = plan.layout();
    // Uneven: one microbatch has a row more.
    const int64_t rows = made.dp * (2 * static_cast<int64_t>(std::max(made.chunks, made.pp)) + 1);
    inputs = example_inputs(plan, model, options.rows > 0 ? options.rows : rows, options.seed);
  }
  Engine engine(plan, world);
  Verification found = verify(engine, inputs, {}, reference);
  layout = layout_report(plan.layout(), found.chunks);
  return found;
}

Verification verify_tokens(
    const Options& options, const Model& model, World& world, const Model* reference, Json& layout) {
  Prompts prompts;
  GenerateOptions generating;
  generating.max_new_tokens = options.max_new_tokens;
  if (world.rank() == 0) {
    const std::string folder = options.tokenizer.empty() ? model.folder().string() : options.tokenizer;
    std::optional<Tokenizer> tokenizer;
    if (options.prompts.input_ids.empty()) {
      tokenizer.emplace(Tokenizer::from_folder(folder));
    }
    prompts = read_prompts(options.prompts, folder, tokenizer ? &*tokenizer : nullptr);
    generating.eos_token_ids = model.eos_token_ids();
    model.check_prompts(prompts.ids, generating.max_new_tokens);
  }
  const Plan plan = make_plan(model, world, options.run.plan);
  Engine engine(plan, world);
  Verification found = verify(engine, prompts.ids, generating, reference);
  layout = layout_report(plan.layout(), found.chunks);
  return found;
}

void report(const Options& options, const Json& layout, const Verification& found) {
  if (!options.json) {
    print(found);
    return;
  }
  Json json = {{"model", options.run.model}, {"layout", layout}, {"equal", found.equal()}};
  json["stages"] = Json::array();
  for (const StageVerification& stage : found.stages) {
    json["stages"].push_back(describe(stage));
  }
  if (found.prompts > 0) {
    json["prompts"] = found.prompts;
    json["tokens"] = found.tokens;
    json["largest_logprob_difference"] = found.largest_logprob;
    json["logprob_bound"] = found.logprob_bound;
    json["token_difference"] = found.token_difference;
  }
  json["summary"] = found.summary();
  write_json(json);
}

int verify_command(Options& options, const Invocation& invocation) {
  check(options.run);
  const bool tokens = has_prompts(options);
  if (tokens) {
    check(options.prompts);
    if (!options.inputs.empty()) {
      throw Error(
          ErrorCode::usage, "--inputs goes with a batch of tensors, a prompt with generation", "give one of them");
    }
  }
  if (must_launch(options.run)) {
    return launch_ranks(options.run, invocation);
  }
  std::signal(SIGPIPE, SIG_IGN);
  World world = World::from_environment(options.run.timeout_s, options.run.transport);
  const Model model = open_model(options.run, options.weights, world.rank() == 0);
  std::optional<Model> reference;
  if (!options.reference.empty()) {
    reference = open_reference(options, world.rank() == 0);
  } else if (is_artefact(options.run.model) || options.run.plan.layout.tp > 1) {
    reference = model;  // each rank finds its own part only
  }
  Json layout;
  const Verification found = tokens ? verify_tokens(options, model, world, reference ? &*reference : nullptr, layout)
                                    : verify_batch(options, model, world, reference ? &*reference : nullptr, layout);
  if (world.rank() == 0) {
    report(options, layout, found);
    if (!found.equal()) {
      throw Error(ErrorCode::internal, found.summary(), "the layout does not compute what one process does");
    }
  }
  world.finish();
  return 0;
}
}  // namespace

Action add_verify(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_run_options(app, options->run);
  app.add_option("--weights", options->weights, "folder or file with the weights of a program exported without them");
  app.add_option("--inputs", options->inputs, "safetensors file with the inputs by name (default: random ones)");
  app.add_option("--rows", options->rows, "rows of the random batch")->check(CLI::PositiveNumber);
  app.add_option("--seed", options->seed, "of the random inputs");
  add_repeatable(app, "--prompt", options->prompts.prompts, "text to continue: compares generation (repeatable)");
  app.add_option("--prompts", options->prompts.file, "file with a prompt a line");
  app.add_option(
      "--input-ids", options->prompts.input_ids, "safetensors file with prompts as input_ids [rows, length]");
  app.add_option("--tokenizer", options->tokenizer, "folder with the tokenizer (default: the model's)");
  app.add_option("--max-new-tokens", options->max_new_tokens, "tokens to generate for each prompt")
      ->check(CLI::PositiveNumber);
  app.add_option("--reference", options->reference, "model whose weights the one process takes (default: the same)");
  app.add_flag("--json", options->json, "print one JSON object");
  return [options](const Invocation& invocation) { return verify_command(*options, invocation); };
}

}  // namespace shardpipe::cli
