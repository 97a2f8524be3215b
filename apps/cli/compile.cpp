#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/json.h"
#include "layout_options.h"
#include "report.h"
#include "shardpipe/artefact.h"

namespace shardpipe::cli {
namespace {

struct Options {
  RunOptions run;
  std::string weights;
  std::string output;
  std::string inputs;
  bool references = false;
  bool json = false;
};

int compile_command(Options& options, const Invocation& invocation) {
  if (is_artefact(options.run.model)) {
    throw Error(
        ErrorCode::usage, options.run.model + " is an artefact already", "compile the model that it was made of");
  }
  check(options.run);
  const Model model = open_model(options.run, options.weights, true);
  CompileOptions compiling;
  compiling.plan = options.run.plan;
  compiling.references = options.references;
  if (!options.inputs.empty()) {
    compiling.example = read_tensors(options.inputs);
  }
  compile(model, compiling, options.output);
  const ArtefactInfo made = read_artefact(options.output);
  const double seconds = now_s() - invocation.start_s;
  if (options.json) {
    Json json;
    json["model"] = options.run.model;
    json["output"] = options.output;
    json["layout"] = layout_report(made.layout, made.layout.chunks);
    json["dtype"] = made.dtype;
    json["programs"] = made.programs;
    json["bytes"] = made.file_bytes;
    json["timing"] = {{"compile_s", seconds}};
    write_json(json);
  } else {
    write(fmt::format(
        "{}: {} for {} ranks, {}, {:.1f} MiB\n", options.output, fmt::join(made.programs, ", "), made.layout.pp,
        made.dtype, static_cast<double>(made.file_bytes) / (1 << 20)));
  }
  return 0;
}

}  // namespace

Action add_compile(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_run_options(app, options->run);
  app.add_option("--weights", options->weights, "folder or file with the weights of a program exported without them");
  app.add_option("--output", options->output, "folder to make; it must not exist, or be empty")->required();
  app.add_option("--inputs", options->inputs, "safetensors file with an example that --split balanced balances for");
  app.add_flag("--references", options->references, "name the model's own files of weights instead of copying them");
  app.add_flag("--json", options->json, "print one JSON object");
  return [options](const Invocation& invocation) { return compile_command(*options, invocation); };
}

}  // namespace shardpipe::cli
