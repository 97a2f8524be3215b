#include <ATen/core/Tensor.h>

#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "layout_options.h"
#include "report.h"
#include "shardpipe/explain.h"

namespace shardpipe::cli {
namespace {

struct Options {
  RunOptions run;
  ExplainOptions explain;
  std::string weights;
  std::string inputs;
  std::vector<std::string> sizes;
  std::string html;
  bool json = false;
};

// "NAME=N"
std::pair<std::string, int64_t> size_of(const std::string& text) {
  const size_t equals = text.rfind('=');
  int64_t size = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + std::min(equals, text.size() - 1) + 1, end, size);
  if (equals == std::string::npos || equals == 0 || error != std::errc() || rest != end) {
    throw_usage("--size is given \"{}\", must be NAME=NUMBER", text);
  }
  return {text.substr(0, equals), size};
}

int plan_command(Options& options) {
  check(options.run);
  if (!options.html.empty()) {
    check_output("--html", options.html);
  }
  const Model model = open_model(options.run, options.weights, true);
  PlanOptions planning = options.run.plan;
  NamedTensors inputs;
  if (!options.inputs.empty()) {
    inputs = read_tensors(options.inputs);
    planning.program = forward_program(inputs);
  }
  for (const std::string& text : options.sizes) {
    options.explain.sizes.insert(size_of(text));
  }
  // Here --profile also tells what a layout costs whose cuts do not depend on it.
  options.explain.name = options.run.model;
  options.explain.profile = planning.layout.profile;
  planning.layout.profile =
      planning.layout.profile && planning.layout.split == "balanced" && planning.layout.cuts.empty();
  const Explanation explanation = explain(model, planning, options.explain, inputs);
  if (!options.html.empty()) {
    write_file(options.html, explanation.html());
  }
  write(options.json ? explanation.json() + "\n" : explanation.text());
  return 0;
}

}  // namespace

Action add_plan(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_run_options(app, options->run);
  app.add_option("--weights", options->weights, "folder or file with the weights of a program exported without them");
  app.add_option("--inputs", options->inputs, "safetensors file with inputs: plan `run` with them, not `generate`");
  app.add_option("--batch", options->explain.batch, "prompts, or rows of a batch (default: one a microbatch)")
      ->check(CLI::PositiveNumber);
  app.add_option("--prompt-tokens", options->explain.prompt_tokens, "tokens of each prompt (default: 128)")
      ->check(CLI::PositiveNumber);
  app.add_option("--new-tokens", options->explain.new_tokens, "tokens generated after each (default: 32)")
      ->check(CLI::PositiveNumber);
  add_repeatable(app, "--size", options->sizes, "NAME=N: a named dimension, where there are no --inputs (repeatable)");
  app.add_option("--html", options->html, "also write a page with diagram, costs and timeline to this file");
  app.add_flag("--json", options->json, "print one JSON object");
  return [options](const Invocation&) { return plan_command(*options); };
}

}  // namespace shardpipe::cli
