#include "commands.h"
#include "shardpipe/worker_pool.h"

namespace shardpipe::cli {

Action add_worker(CLI::App& app) {
  struct Options {
    std::string pool;
    int ranks = 0;
    double timeout_s = 300;
    std::string transport = "auto";
  };
  auto options = std::make_shared<Options>();
  app.group("");  // not for people to type
  app.add_option("--pool", options->pool, "where the pool listens")->required();
  app.add_option("--ranks", options->ranks, "start so many of these; 0 = be one of them");
  app.add_option("--timeout", options->timeout_s, "seconds that the ranks may take to meet, and one action may last");
  app.add_option("--transport", options->transport, "how the ranks talk");
  return [options](const Invocation&) {
    return run_pool_worker(options->pool, options->ranks, options->timeout_s, options->transport);
  };
}

}  // namespace shardpipe::cli
