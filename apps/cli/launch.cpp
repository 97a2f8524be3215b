#include "commands.h"
#include "shardpipe/world.h"

namespace shardpipe::cli {

Action add_launch(CLI::App& app) {
  auto options = std::make_shared<LaunchOptions>();
  app.add_option("--nproc", options->nproc, "processes on this host")->required();
  app.add_option("--nnodes", options->nnodes, "hosts");
  app.add_option("--node-rank", options->node_rank, "this host's number, from 0");
  app.add_option("--master", options->master, "HOST:PORT where all ranks meet (default: this host, a free port)");
  app.add_option("program", options->arguments, "the program and its arguments")->required();
  app.positionals_at_end();
  app.prefix_command();
  return [options, &app](const Invocation&) {
    LaunchOptions chosen = *options;
    for (const std::string& argument : app.remaining()) {
      chosen.arguments.push_back(argument);
    }
    return launch(chosen);
  };
}

}  // namespace shardpipe::cli
