// Times generation, or one forward, in one process after a warm-up, as bench/e2e/compare.py and predict.py ask: one
// JSON object a repetition. Started once a rank when the layout has several.
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "shardpipe/engine.h"

namespace {

// The same ids as compare.py gives Hugging Face.
std::vector<std::vector<int64_t>> make_prompts(int rows, int length, int64_t vocab) {
  std::vector<std::vector<int64_t>> prompts;
  for (int row = 0; row < rows; ++row) {
    auto& prompt = prompts.emplace_back();
    for (int i = 0; i < length; ++i) {
      prompt.push_back((int64_t{row} * 7919 + int64_t{i} * 104729 + 17) % (vocab - 100) + 50);
    }
  }
  return prompts;
}

// Forward passes of a batch, all prompts of one length.
void time_forward(
    shardpipe::World& world,
    shardpipe::Engine& engine,
    const std::vector<std::vector<int64_t>>& prompts,
    int repetitions) {
  shardpipe::NamedTensors inputs;
  if (world.rank() == 0) {
    std::vector<int64_t> ids;
    for (const std::vector<int64_t>& prompt : prompts) {
      ids.insert(ids.end(), prompt.begin(), prompt.end());
    }
    inputs.emplace_back("input_ids", at::tensor(ids, at::kLong).view({std::ssize(prompts), -1}));
  }
  for (int i = 0; i <= repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const shardpipe::RunResult result = engine.run(inputs);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    if (i > 0 && world.rank() == 0) {
      fmt::print(
          R"({{"rank": 0, "run_s": {}, "chunks": {}}})"
          "\n",
          passed.count(), result.chunks);
      std::fflush(stdout);
    }
  }
}

int run(int argc, char** argv) {
  using namespace shardpipe;
  std::string folder;
  std::string dtype = "float32";
  PlanOptions options;
  int rows = 1;
  int length = 128;
  int repetitions = 3;
  bool forward = false;
  GenerateOptions generation{.max_new_tokens = 33};
  CLI::App app("Times generation");
  app.add_option("--model", folder)->required();
  app.add_option("--dtype", dtype);
  app.add_option("--pp", options.layout.pp);
  app.add_option("--cuts", options.layout.cuts)->delimiter(',');
  app.add_option("--chunks", options.layout.chunks);
  app.add_option("--threads", options.threads);
  app.add_option("--kernels", options.kernels);
  app.add_option("--rows", rows);
  app.add_option("--length", length);
  app.add_option("--new-tokens", generation.max_new_tokens);
  app.add_option("--repetitions", repetitions);
  app.add_flag("--forward", forward);
  CLI11_PARSE(app, argc, argv);
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  World world = World::from_environment();
  const Model model = Model::from_folder(folder, dtype);
  options.program = forward ? ModelProgram::forward : ModelProgram::generation;
  const Plan plan = make_plan(model, world, options);
  Engine engine(plan, world);
  const auto prompts =
      world.rank() == 0 ? make_prompts(rows, length, model.vocab_size()) : std::vector<std::vector<int64_t>>{};
  if (forward) {
    time_forward(world, engine, prompts, repetitions);
  }
  for (int i = 0; i <= repetitions && !forward; ++i) {
    const GenerateResult result = generate(engine, prompts, generation);
    if (i == 0) {
      continue;
    }
    double compute = 0;
    double wait = 0;
    for (size_t step = 1; step < result.steps.size(); ++step) {
      compute += result.steps[step].compute_s;
      wait += result.steps[step].wait_s;
    }
    const std::string line = fmt::format(
        R"({{"rank": {}, "prefill_s": {}, "decode_s": {}, "decode_tokens": {}, "lanes": {}, "compute_s": {}, "wait_s": {}, "first_token": {}}})",
        world.rank(), result.prefill_s, result.decode_s,
        (static_cast<double>(result.outputs[0].token_ids.size()) - 1) * static_cast<double>(result.outputs.size()),
        result.lanes, compute, wait, result.outputs[0].token_ids[0]);
    for (const std::string& rank : world.gather(line)) {
      fmt::print("{}\n", rank);
    }
    std::fflush(stdout);
  }
  world.finish();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int status = 1;
  try {
    status = run(argc, argv);
  } catch (const shardpipe::Error& error) {
    status = shardpipe::fail(error);
  } catch (...) {
    std::fputs("an exception that is no Error\n", stderr);
  }
  std::_Exit(status);
}
