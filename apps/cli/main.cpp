#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/error.h"
#include "commands.h"
#include "config_file.h"
#include "shardpipe/version.h"
#include "shardpipe/world.h"

namespace shardpipe::cli {
namespace {

// A large product's result on fresh pages costs twice the product: freed memory stays with the process.
void keep_freed_memory() {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  ::mallopt(M_TOP_PAD, 64 << 20);
}

int run(Invocation& invocation) {
  CLI::App app("Runs PyTorch models cut into pipeline stages, across processes, without Python");
  app.name("shardpipe");
  app.set_version_flag("--version", std::string("shardpipe ") + SHARDPIPE_VERSION);
  app.require_subcommand(1);
  std::vector<std::pair<CLI::App*, Action>> actions;
  for (const Command& command : commands()) {
    CLI::App* sub = app.add_subcommand(command.name, command.help);
    actions.emplace_back(sub, command.add(*sub));
  }
  std::vector<std::string> arguments(invocation.arguments.begin() + 1, invocation.arguments.end());
  const auto dashes = std::find(arguments.begin(), arguments.end(), "--");
  if (dashes != arguments.end()) {
    invocation.program.assign(dashes + 1, arguments.end());
    arguments.erase(dashes, arguments.end());
  }
  try {
    for (const auto& [sub, action] : actions) {
      if (!arguments.empty() && arguments[0] == sub->get_name()) {
        apply_config_file(*sub, arguments);
      }
    }
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes a vector
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      return app.exit(error);  // --help, --version
    }
    throw Error(ErrorCode::usage, error.what(), "see shardpipe --help and shardpipe COMMAND --help");
  }
  for (const auto& [sub, action] : actions) {
    if (sub->parsed()) {
      return action(invocation);
    }
  }
  return 0;
}

}  // namespace
}  // namespace shardpipe::cli

int main(int argc, char** argv) {
  using namespace shardpipe;
  cli::Invocation invocation{{argv, argv + argc}, cli::now_s(), {}};
  int status = 0;
  try {
    cli::keep_freed_memory();
    status = cli::run(invocation);
  } catch (...) {
    status = fail(current_error());
  }
  // Not exit(): destructors of threads that hang in a message would keep the process.
  std::fflush(nullptr);
  std::_Exit(status);
}
