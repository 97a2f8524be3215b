#include "text_batch.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "base/error.h"
#include "base/json.h"
#include "report.h"

namespace shardpipe::cli {
namespace {

at::Tensor rows(const std::vector<EncodedText>& texts, std::vector<int64_t> EncodedText::*numbers) {
  std::vector<at::Tensor> list;
  for (const EncodedText& text : texts) {
    list.push_back(at::tensor(text.*numbers, at::kLong));
  }
  return at::stack(list);
}

// Whether transformers' tokenizer of the folder gives token types: the plain class does so only where it is told.
bool has_token_types(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer_config.json";
  if (!std::filesystem::exists(file)) {
    return true;
  }
  const Json config = read_json(file);
  if (!config.is_object()) {
    return true;
  }
  if (config.contains("model_input_names") && config["model_input_names"].is_array()) {
    const Json& names = config["model_input_names"];
    return std::find(names.begin(), names.end(), "token_type_ids") != names.end();
  }
  const Json name = config.contains("tokenizer_class") ? config["tokenizer_class"] : Json();
  return name != "TokenizersBackend" && name != "PreTrainedTokenizerFast";
}

void check(const TextOptions& options) {
  if (options.texts.empty()) {
    throw Error(ErrorCode::usage, "there is no text", "give --text, once or several times");
  }
  if (!options.pairs.empty() && options.pairs.size() != options.texts.size()) {
    throw_usage(
        "--text-pair is given {} times and --text {} times; as often, or never, is expected", options.pairs.size(),
        options.texts.size());
  }
}

at::Tensor find_output(const NamedTensors& outputs, const std::vector<std::string>& names, const std::string& model) {
  std::vector<std::string> there;
  for (const auto& [name, tensor] : outputs) {
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      return tensor.to(at::kFloat);
    }
    there.push_back(name);
  }
  throw Error(
      ErrorCode::usage,
      fmt::format("{} has no output {}; it has {}", model, fmt::join(names, " or "), fmt::join(there, ", ")),
      "is it a model for this command? see \"architectures\" in its config.json");
}

}  // namespace

void add_text_options(CLI::App& app, TextOptions& options) {
  add_run_options(app, options.run);
  app.add_option("--tokenizer", options.tokenizer, "folder with tokenizer.json (default: the model's)");
  add_repeatable(app, "--text", options.texts, "a text (repeatable)");
  add_repeatable(
      app, "--text-pair", options.pairs, "what belongs to the text, its second sentence (as often as --text)");
  app.add_flag("--json", options.json, "print one JSON object");
}

int run_texts(
    TextOptions& options,
    const Invocation& invocation,
    const std::vector<std::string>& output,
    const std::function<Json(const TextAnswer&, const Tokenizer&)>& report,
    const std::function<std::string(const Json&)>& line) {
  check(options.run);
  check(options);
  if (must_launch(options.run)) {
    return launch_ranks(options.run, invocation);
  }
  std::signal(SIGPIPE, SIG_IGN);
  World world = World::from_environment(options.run.timeout_s, options.run.transport);
  const bool first = world.rank() == 0;
  const Model model = open_model(options.run, "", first);
  std::optional<Tokenizer> tokenizer;
  TextAnswer answer;
  NamedTensors inputs;
  if (first) {
    const std::filesystem::path folder = options.tokenizer.empty() ? options.run.model : options.tokenizer;
    tokenizer = Tokenizer::from_folder(folder);
    answer.texts = tokenizer->encode_batch(options.texts, options.pairs);
    inputs = {
        {"input_ids", rows(answer.texts, &EncodedText::ids)},
        {"attention_mask", rows(answer.texts, &EncodedText::attention_mask)}};
    if (has_token_types(folder)) {
      inputs.emplace_back("token_type_ids", rows(answer.texts, &EncodedText::type_ids));
    }
  }
  PlanOptions planning = options.run.plan;
  planning.program = ModelProgram::forward_with_mask;
  const Plan plan = make_plan(model, world, planning);
  Engine engine(plan, world);
  const double load_s = now_s() - invocation.start_s;
  const double start = now_s();
  const RunResult result = engine.run(inputs);
  const double run_s = now_s() - start;
  Json outputs;
  if (first) {
    answer.logits = find_output(result.outputs, output, options.run.model);
    outputs = report(answer, *tokenizer);
  }
  const std::vector<std::string> ranks = world.gather(rank_report(world, engine).dump());
  world.finish();
  if (!first) {
    return 0;
  }
  if (options.json) {
    Json json;
    json["model"] = options.run.model;
    json["layout"] = layout_report(plan.layout(), result.chunks);
    json["outputs"] = std::move(outputs);
    json["timing"] = {{"load_s", load_s}, {"run_s", run_s}};
    json["ranks"] = ranks_report(ranks);
    write_json(json);
    return 0;
  }
  for (const Json& entry : outputs) {
    write(line(entry));
  }
  return 0;
}

}  // namespace shardpipe::cli
