#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

#include "commands.h"
#include "shardpipe/model.h"
#include "shardpipe/options.h"
#include "shardpipe/tensors.h"

namespace shardpipe::cli {

/// Options that are the same for every command that runs a model.
struct RunOptions {
  std::string model;
  PlanOptions plan;
  std::string dtype;
  std::string transport = "auto";
  double timeout_s = 300;
  std::string tp_plan;
  std::string memory;
  bool verify_files = false;
  const CLI::App* command = nullptr;  ///< that the options belong to
};

/// Adds --model, the layout and --config to a command.
void add_run_options(CLI::App& app, RunOptions& options);

/// Adds an option that may be given several times, with one value each time.
void add_repeatable(CLI::App& app, const char* name, std::vector<std::string>& list, const char* help);

/// Reads --memory, and of an artefact the layout. Throws Error(usage) for values that no layout has, for what this
/// version does not run yet, and for options that contradict the artefact.
void check(RunOptions& options);

/// The model that --model names: a Hugging Face folder, an artefact, or an exported program with `weights` beside it.
/// The first rank checks the files of an artefact. Throws Error(usage) for what does not go together, Error(input) for
/// an artefact that is not complete.
Model open_model(const RunOptions& options, const std::string& weights, bool first_rank);

/// The program that takes these inputs: of a Hugging Face folder one forward pass, with a mask where there is one.
ModelProgram forward_program(const NamedTensors& inputs);

/// Whether the process must start the ranks itself: the layout has several and nobody started this process as one.
/// Throws Error(usage) where this host does not have the ranks' device.
bool must_launch(const RunOptions& options);

/// Starts this program again, once a rank, with the same arguments; returns the exit status.
int launch_ranks(const RunOptions& options, const Invocation& invocation);

}  // namespace shardpipe::cli
