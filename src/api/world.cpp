#include "shardpipe/world.h"

#include <chrono>

#include "api/impl.h"
#include "base/error.h"
#include "base/log.h"
#include "comm/launcher.h"
#include "graph/device.h"

namespace shardpipe {

World::World() = default;
World::~World() = default;
World::World(World&&) noexcept = default;

World World::from_environment(double timeout_s, const std::string& transport) {
  if (!(timeout_s > 0)) {
    throw_usage("--timeout is {} s, must be above 0", timeout_s);
  }
  comm::WorldOptions options;
  options.transport = comm::transport_choice(transport);
  options.timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1000));
  const comm::Environment environment = comm::environment_from_variables().value_or(comm::Environment{});
  if (environment.world_size > 1) {
    set_log_rank(environment.rank);
  }
  World world;
  world.impl_ = std::make_unique<Impl>(comm::World::connect(environment, options));
  return world;
}

int World::rank() const {
  return impl_->world.rank();
}

int World::size() const {
  return impl_->world.size();
}

std::vector<std::string> World::gather(const std::string& text) {
  return impl_->world.gather(text);
}

void World::finish() {
  impl_->world.finish();
}

void check_transport(const std::string& name, const std::string& device) {
  if (graph::device_type(device) == at::kCPU && name == "nccl") {
    throw Error(
        ErrorCode::usage, "--transport nccl carries what is on GPUs, and --device is cpu", "use auto, gloo or shm");
  }
  comm::transport_choice(name);
}

void check_device(const std::string& device) {
  graph::find_device(device, 0);
}

bool is_rank() {
  return comm::environment_from_variables().has_value();
}

int launch(const LaunchOptions& options) {
  comm::LaunchOptions chosen;
  chosen.nproc = options.nproc;
  chosen.nnodes = options.nnodes;
  chosen.node_rank = options.node_rank;
  chosen.master = options.master;
  chosen.program = options.arguments;
  return comm::launch(chosen);
}

int fail(const Error& error) {
  std::optional<comm::Environment> environment;
  try {
    environment = comm::environment_from_variables();
  } catch (const Error&) {
    environment.reset();  // the variables are what is wrong: nobody can be told
  }
  return comm::World::fail(error, environment);
}

}  // namespace shardpipe
