#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <filesystem>

#include "base/error.h"
#include "base/json.h"
#include "layout_options.h"
#include "report.h"
#include "shardpipe/engine.h"

namespace shardpipe::cli {
namespace {

struct Options {
  RunOptions run;
  std::string weights;
  std::string inputs;
  std::string outputs;
  std::string loss;
  std::string gradients;
  std::string state;
  std::string save_state;
  std::vector<std::string> chunk;
  std::vector<std::string> merge;
  bool json = false;
};

// "NAME=RULE"
std::pair<std::string, std::string> rule_of(const std::string& option, const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) {
    throw_usage("{} is given \"{}\", must be NAME=RULE", option, text);
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::optional<int> dimension_of(const std::string& text) {
  int dim = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), dim);
  return error == std::errc() && rest == text.data() + text.size() && dim >= 0 ? std::optional(dim) : std::nullopt;
}

std::optional<int> chunk_rule(const std::string& name, const std::string& rule) {
  const std::optional<int> dim = dimension_of(rule);
  if (!dim && rule != "replicate") {
    throw_usage("--chunk {}={}: the rule must be a dimension from 0 on, or replicate", name, rule);
  }
  return dim;
}

MergeRule merge_rule(const std::string& name, const std::string& rule) {
  using Kind = MergeRule::Kind;
  for (const auto& [text, kind] : {std::pair("sum", Kind::sum), {"mean", Kind::mean}, {"last", Kind::last}}) {
    if (rule == text) {
      return {kind, 0};
    }
  }
  const std::optional<int> dim = rule == "cat"              ? std::optional(0)
                                 : rule.starts_with("cat:") ? dimension_of(rule.substr(4))
                                                            : std::nullopt;
  if (!dim) {
    throw_usage("--merge {}={}: the rule must be cat, cat:DIMENSION, sum, mean or last", name, rule);
  }
  return {Kind::cat, *dim};
}

shardpipe::RunOptions batch_options(const Options& options) {
  shardpipe::RunOptions batch;
  batch.loss = options.loss;
  for (const std::string& text : options.chunk) {
    const auto [name, rule] = rule_of("--chunk", text);
    batch.chunk[name] = chunk_rule(name, rule);
  }
  for (const std::string& text : options.merge) {
    const auto [name, rule] = rule_of("--merge", text);
    batch.merge[name] = merge_rule(name, rule);
  }
  return batch;
}

Json describe(const NamedTensors& tensors) {
  Json list = Json::array();
  for (const auto& [name, tensor] : tensors) {
    list.push_back({{"name", name}, {"dtype", dtype_name(tensor)}, {"shape", tensor.sizes().vec()}});
  }
  return list;
}

void print(const Json& report, const Options& options) {
  for (const Json& output : report["outputs"]) {
    write(fmt::format(
        "{}: {}[{}]\n", output["name"].get<std::string>(), output["dtype"].get<std::string>(),
        fmt::join(output["shape"].get<std::vector<int64_t>>(), ", ")));
  }
  if (report.contains("loss")) {
    write(fmt::format("{} = {}\n", options.loss, report["loss"].get<double>()));
  }
}

int run_command(Options& options, const Invocation& invocation) {
  check(options.run);
  shardpipe::RunOptions batch = batch_options(options);
  if (options.loss.empty() != options.gradients.empty()) {
    throw Error(ErrorCode::usage, "--loss and --grads go together", "--loss NAME --grads FILE.safetensors");
  }
  if (must_launch(options.run)) {
    return launch_ranks(options.run, invocation);
  }
  std::signal(SIGPIPE, SIG_IGN);
  World world = World::from_environment(options.run.timeout_s, options.run.transport);
  const bool first = world.rank() == 0;
  const Model model = open_model(options.run, options.weights, first);
  NamedTensors inputs;
  if (first) {
    check_output("--outputs", options.outputs);
    if (!options.gradients.empty()) {
      check_output("--grads", options.gradients);
    }
    if (!options.save_state.empty()) {
      check_output("--save-state", options.save_state);
    }
    inputs = read_tensors(options.inputs);
  }
  PlanOptions planning = options.run.plan;
  planning.gradients = !options.loss.empty();
  planning.program = forward_program(inputs);
  const Plan plan = make_plan(model, world, planning, inputs);
  Engine engine(plan, world);
  if (!options.state.empty()) {
    engine.load_state(options.state);
  }
  const double load_s = now_s() - invocation.start_s;
  const double start = now_s();
  const RunResult result = engine.run(inputs, batch);
  const double run_s = now_s() - start;
  if (!options.save_state.empty()) {
    engine.save_state(options.save_state);
  }
  if (first) {
    write_tensors(options.outputs, result.outputs);
    if (!options.gradients.empty()) {
      write_tensors(options.gradients, result.gradients);
    }
  }
  const std::vector<std::string> ranks = world.gather(rank_report(world, engine).dump());
  world.finish();
  if (!first) {
    return 0;
  }
  Json report;
  report["model"] = options.run.model;
  report["layout"] = layout_report(plan.layout(), result.chunks);
  report["outputs"] = describe(result.outputs);
  for (const auto& [name, tensor] : result.outputs) {
    if (name == options.loss) {
      report["loss"] = tensor.item<double>();
    }
  }
  if (!options.gradients.empty()) {
    report["gradients"] = describe(result.gradients);
  }
  report["timing"] = {{"load_s", load_s}, {"run_s", run_s}};
  report["ranks"] = ranks_report(ranks);
  if (options.json) {
    write_json(report);
  } else {
    print(report, options);
  }
  return 0;
}

}  // namespace

Action add_run(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_run_options(app, options->run);
  app.add_option("--weights", options->weights, "folder or file with the weights of a program exported without them");
  app.add_option("--inputs", options->inputs, "safetensors file with the inputs by name")->required();
  app.add_option("--outputs", options->outputs, "safetensors file to write the outputs to")->required();
  app.add_option("--loss", options->loss, "output to compute the gradients of");
  app.add_option("--grads", options->gradients, "safetensors file to write the gradients to, by parameter");
  app.add_option("--state", options->state, "safetensors file with the state that the model begins with");
  app.add_option("--save-state", options->save_state, "safetensors file to write the state to that it ends with");
  add_repeatable(
      app, "--chunk", options->chunk, "INPUT=DIM|replicate: how an input is cut into microbatches (repeatable)");
  add_repeatable(
      app, "--merge", options->merge, "OUTPUT=cat[:DIM]|sum|mean|last: how an output is joined (repeatable)");
  app.add_flag("--json", options->json, "print one JSON object");
  return [options](const Invocation& invocation) { return run_command(*options, invocation); };
}

}  // namespace shardpipe::cli
