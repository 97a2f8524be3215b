#include "base/error.h"
#include "commands.h"
#include "shardpipe/world.h"

namespace shardpipe::cli {

Action add_launch(CLI::App& app) {
  auto options = std::make_shared<LaunchOptions>();
  app.add_option("--nproc", options->nproc, "processes on this host")->required();
  app.add_option("--nnodes", options->nnodes, "hosts");
  app.add_option("--node-rank", options->node_rank, "this host's number, from 0");
  app.add_option("--master", options->master, "HOST:PORT where all ranks meet (default: this host, a free port)");
  app.footer("The program and its arguments follow, best after --: shardpipe launch --nproc 2 -- PROGRAM ...");
  app.prefix_command();
  return [options, &app](const Invocation& invocation) {
    LaunchOptions chosen = *options;
    chosen.arguments = app.remaining();
    chosen.arguments.insert(chosen.arguments.end(), invocation.program.begin(), invocation.program.end());
    if (chosen.arguments.empty()) {
      throw Error(ErrorCode::usage, "launch needs a program to start", "shardpipe launch --nproc 2 -- PROGRAM ...");
    }
    return launch(chosen);
  };
}

}  // namespace shardpipe::cli
