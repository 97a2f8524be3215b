#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <string>
#include <vector>

namespace shardpipe::cli {

/// How the program was called: to start itself again, and to time the start.
struct Invocation {
  std::vector<std::string> arguments;  ///< argv
  double start_s = 0;                  ///< on the steady clock
  std::vector<std::string> program;    ///< what follows "--": a program with its arguments
};

/// Runs a command and returns the exit status. Errors are thrown.
using Action = std::function<int(const Invocation&)>;

/// One row a command: `add` makes its sub-command with all options and returns what to run when it is chosen.
struct Command {
  const char* name;
  const char* help;
  Action (*add)(CLI::App& app);
};

/// All commands, in the order of --help.
const std::vector<Command>& commands();

Action add_generate(CLI::App& app);
Action add_run(CLI::App& app);
Action add_classify(CLI::App& app);
Action add_fill_mask(CLI::App& app);
Action add_plan(CLI::App& app);
Action add_verify(CLI::App& app);
Action add_simulate(CLI::App& app);
Action add_compile(CLI::App& app);
Action add_launch(CLI::App& app);
Action add_doctor(CLI::App& app);
Action add_worker(CLI::App& app);  ///< hidden: for WorkerPool

/// Seconds on the steady clock.
double now_s();

}  // namespace shardpipe::cli
