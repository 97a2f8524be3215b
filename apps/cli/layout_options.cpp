#include "layout_options.h"

#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "base/bytes.h"
#include "base/error.h"
#include "shardpipe/artefact.h"
#include "shardpipe/engine.h"
#include "shardpipe/world.h"

namespace shardpipe::cli {

void add_run_options(CLI::App& app, RunOptions& options) {
  LayoutOptions& layout = options.plan.layout;
  options.command = &app;
  app.add_option("--model", options.model, "Hugging Face folder, program from torch.export (FILE.pt2), or artefact")
      ->required();
  app.add_option("--pp", layout.pp, "ranks along the pipeline")->group("Layout");
  app.add_option("--tp", layout.tp, "ranks that share each matrix")->group("Layout");
  app.add_option("--dp", layout.dp, "replicas that share the rows or prompts")->group("Layout");
  app.add_option(
         "--chunks", layout.chunks, "microbatches a batch is cut into (default: the fewest that fill the pipeline)")
      ->group("Layout")
      ->check(CLI::PositiveNumber);
  app.add_option("--virtual", layout.virtual_stages, "stages a rank (default: as many as the schedule has)")
      ->group("Layout")
      ->check(CLI::PositiveNumber);
  app.add_option("--split", layout.split, "where to cut: even, equal_size, threshold:BYTES or balanced")
      ->group("Layout");
  app.add_flag("--profile", layout.profile, "--split balanced: time each layer once, instead of the cost model")
      ->group("Layout");
  app.add_option("--memory", options.memory, "most that a rank's weights may take (300000, 512M, 1.5GiB)")
      ->group("Layout");
  app.add_option("--cuts", layout.cuts, "modules to cut after, comma-separated (\"<NAME\": before)")
      ->group("Layout")
      ->delimiter(',');
  app.add_option("--tp-plan", options.tp_plan, "JSON file that pins how modules' weights lie over the ranks of tp")
      ->group("Layout");
  app.add_option(
         "--schedule", layout.schedule,
         "order of the work: fill-drain, 1f1b, interleaved, looped-bfs, zb-h1, zb-v or FILE.csv")
      ->group("Layout");
  app.add_option("--dtype", options.dtype, "float32, bfloat16 or float16 (default: config.json's)")->group("Run");
  app.add_option("--device", options.plan.device, "cpu, or cuda: one GPU a rank, shared where a host has fewer")
      ->group("Run");
  app.add_option("--threads", options.plan.threads, "threads a rank (default: cores / local ranks)")
      ->group("Run")
      ->check(CLI::PositiveNumber);
  app.add_option("--kernels", options.plan.kernels, "auto, or reference: PyTorch's own operators")->group("Run");
  app.add_option("--transport", options.transport, "between ranks: auto (shared memory on one host), gloo, shm or nccl")
      ->group("Run");
  app.add_option("--timeout", options.timeout_s, "seconds that the ranks may take to meet, and one action may last")
      ->group("Run");
  app.add_flag("--verify-files", options.verify_files, "of an artefact: check the content of its weights too")
      ->group("Run");
  app.add_option("--config", "JSON file with these options by name; the command line wins")->group("Run");
}

void add_repeatable(CLI::App& app, const char* name, std::vector<std::string>& list, const char* help) {
  app.add_option(name, list, help)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1)
      ->allow_extra_args(false);
}

namespace {

// An artefact has its layout: what is said on the command line must be that.
void take_layout(RunOptions& options) {
  const ArtefactInfo artefact = read_artefact(options.model);
  LayoutOptions& layout = options.plan.layout;
  const auto compare = [&](const char* option, const auto& given, const auto& compiled) {
    if (options.command->count(option) > 0 && given != compiled) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "{0} {1} contradicts the artefact {2}, which was compiled with {0} {3}", option, given, options.model,
              compiled),
          "leave the option out, or compile the model again");
    }
  };
  const auto list = [](const std::vector<std::string>& names) { return fmt::format("{}", fmt::join(names, ",")); };
  compare("--pp", layout.pp, artefact.layout.pp);
  compare("--tp", layout.tp, artefact.layout.tp);
  compare("--dp", layout.dp, artefact.layout.dp);
  compare("--virtual", layout.virtual_stages, artefact.layout.virtual_stages);
  compare("--split", layout.split, artefact.layout.split);
  compare("--profile", layout.profile, artefact.layout.profile);
  compare("--cuts", list(layout.cuts), list(artefact.layout.cuts));
  compare("--schedule", layout.schedule, artefact.layout.schedule);
  compare("--device", options.plan.device, artefact.device);
  compare("--kernels", options.plan.kernels, artefact.kernels);
  compare("--dtype", options.dtype, artefact.dtype);
  const int chunks = layout.chunks;
  const int64_t memory_bytes = layout.memory_bytes;
  layout = artefact.layout;
  options.plan.device = artefact.device;
  layout.chunks = chunks > 0 ? chunks : layout.chunks;
  layout.memory_bytes = memory_bytes;
}

}  // namespace

void check(RunOptions& options) {
  if (!options.memory.empty()) {
    options.plan.layout.memory_bytes = parse_bytes(options.memory, "--memory");
  }
  if (is_artefact(options.model)) {
    take_layout(options);
  }
  const LayoutOptions& layout = options.plan.layout;
  for (const auto& [name, value] :
       {std::pair("--pp", layout.pp),
        {"--tp", layout.tp},
        {"--dp", layout.dp},
        {"--virtual", std::max(layout.virtual_stages, 1)}}) {
    if (value < 1 || value > 65536) {
      throw_usage("{} is {}, must be 1 to 65536", name, value);
    }
  }
  if (!options.tp_plan.empty()) {
    options.plan.layout.tp_plan = read_tp_plan(options.tp_plan);
  }
  check_transport(options.transport, options.plan.device);
  if (!(options.timeout_s > 0)) {
    throw_usage("--timeout is {} s, must be above 0", options.timeout_s);
  }
}

Model open_model(const RunOptions& options, const std::string& weights, bool first_rank) {
  if (!std::filesystem::is_regular_file(options.model)) {
    if (!weights.empty()) {
      throw_usage(
          "--weights goes with an exported program, {} {}", options.model,
          is_artefact(options.model) ? "has its weights" : "is none");
    }
    if (first_rank && is_artefact(options.model)) {
      check_artefact(options.model, options.verify_files);
    }
    return Model::from_folder(options.model, options.dtype);
  }
  if (!options.dtype.empty()) {
    throw Error(
        ErrorCode::usage,
        fmt::format("--dtype {}: an exported program has the types it was exported with", options.dtype),
        "export it in that type");
  }
  return Model::from_exported(options.model, weights);
}

ModelProgram forward_program(const NamedTensors& inputs) {
  const bool masked =
      std::any_of(inputs.begin(), inputs.end(), [](const auto& input) { return input.first == "attention_mask"; });
  return masked ? ModelProgram::forward_with_mask : ModelProgram::forward;
}

bool must_launch(const RunOptions& options) {
  check_device(options.plan.device);
  const LayoutOptions& layout = options.plan.layout;
  return layout.pp * layout.dp * layout.tp > 1 && !is_rank();
}

int launch_ranks(const RunOptions& options, const Invocation& invocation) {
  const LayoutOptions& layout = options.plan.layout;
  LaunchOptions launch_options;
  launch_options.nproc = layout.pp * layout.dp * layout.tp;
  launch_options.arguments = invocation.arguments;
  launch_options.arguments[0] = "/proc/self/exe";
  return launch(launch_options);
}

}  // namespace shardpipe::cli
