#include "comm/world.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <exception>
#include <mutex>
#include <numeric>
#include <set>
#include <sstream>

#include "base/log.h"
#include "comm/collectives.h"
#include "comm/failure.h"
#include "comm/meeting.h"
#include "comm/store.h"

namespace shardpipe::comm {
namespace {

/// The latest world's monitor, for World::fail: it outlives a world that an exception took down.
std::shared_ptr<Monitor> latest_monitor;
std::mutex latest_mutex;

void set_latest(std::shared_ptr<Monitor> monitor) {
  const std::lock_guard lock(latest_mutex);
  latest_monitor.swap(monitor);
}

std::shared_ptr<Monitor> get_latest() {
  const std::lock_guard lock(latest_mutex);
  return latest_monitor;
}

/// c10d writes to sockets whose other end may have died and counts on Python, which ignores the signal for that.
void ignore_broken_pipes() {
  struct sigaction action {};
  if (::sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
    ::signal(SIGPIPE, SIG_IGN);
  }
}

/// Where no world exists yet, the store still tells which rank was first, if it can be reached.
bool first_to_fail(const Error& error, const Environment& environment) {
  if (environment.world_size == 1 || (environment.rank == 0 && !environment.agent_store)) {
    return true;
  }
  ignore_broken_pipes();
  try {
    Store store = Store::connect(
        "", environment.master_host, environment.master_port, std::chrono::milliseconds(2000),
        job_prefix(environment.job));
    const std::string author = unique_author();
    const FailureRecord record = FailureRecord::from_error(environment.rank, error, author);
    return FailureRecord::from_text(store.set_first(kFailureKey, record.to_text())).author == author;
  } catch (const std::exception&) {
    return true;
  }
}

}  // namespace

struct World::Impl {
  int rank = 0;
  int size = 1;
  Meeting meeting;
  WorldOptions options;
  std::string name;  ///< prefix of this world's keys; several worlds may follow each other
  std::optional<Store> store;
  std::shared_ptr<Monitor> monitor;
  std::unique_ptr<Connections> connections;
  Group world_group;
  Transport all;
  Transport collectives;
  std::array<Transport, mesh::kAxes.size()> axes;
  std::array<Group, mesh::kAxes.size()> axis_groups;
  at::Device device = at::kCPU;
  bool finished = false;
};

World::World(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
World::World(World&&) noexcept = default;

World World::connect(const Environment& environment, const WorldOptions& options) {
  static std::atomic<int> num_worlds{0};
  World world(std::make_unique<Impl>());
  Impl& impl = *world.impl_;
  impl.rank = environment.rank;
  impl.size = environment.world_size;
  impl.options = options;
  impl.name = fmt::format("world{}", num_worlds++);
  if (impl.size == 1) {
    impl.monitor = std::make_shared<Monitor>(impl.rank);
    set_latest(impl.monitor);
    return world;
  }
  ignore_broken_pipes();
  const std::string who = fmt::format("rank {}", impl.rank);
  const std::string prefix = job_prefix(environment.job);
  const bool serve = impl.rank == 0 && !environment.agent_store;
  impl.store = serve ? Store::serve(listen_on(environment.master_host, environment.master_port), prefix)
                     : Store::connect(who, environment.master_host, environment.master_port, options.timeout, prefix);
  impl.monitor = std::make_shared<Monitor>(
      impl.store->reconnect(options.timeout), impl.name, impl.rank, impl.size, !environment.agent_store, options);
  set_latest(impl.monitor);

  impl.meeting = meet(*impl.store, *impl.monitor, impl.name, environment, options.timeout);
  impl.monitor->set_speaks(impl.meeting.speaks);
  impl.connections = std::make_unique<Connections>(
      *impl.store, impl.monitor, impl.meeting, impl.rank, options.transport, impl.name, environment.master_host,
      options.timeout);
  std::vector<int> ranks(impl.size);
  std::iota(ranks.begin(), ranks.end(), 0);
  const Connection& connection = impl.connections->get(ranks);
  impl.all = Transport(connection.messages, ranks, impl.rank);
  impl.collectives = Transport(connection.messages, ranks, impl.rank, kBytesTags);
  impl.world_group = connection.group;
  return world;
}

World::~World() {
  if (!impl_) {
    return;
  }
  if (impl_->size == 1) {
    return;
  }
  try {
    if (std::uncaught_exceptions() == 0 && impl_->monitor && !impl_->monitor->failed()) {
      finish();
    }
  } catch (const std::exception& error) {
    log_info("{}", error.what());
  }
  if (!impl_->finished) {
    // Messages may be under way and other ranks gone: taking the connections down could block. The process is about to
    // end anyway.
    static_cast<void>(impl_.release());
  }
}

int World::rank() const {
  return impl_->rank;
}

int World::size() const {
  return impl_->size;
}

int World::local_rank() const {
  return impl_->meeting.local_rank;
}

int World::local_world_size() const {
  return impl_->meeting.local_world_size;
}

void World::set_device(at::Device device) {
  impl_->device = device;
  if (size() == 1 || device.is_cpu()) {
    return;
  }
  // By rank: its device, or nothing where it has no NCCL.
  std::string all;
  for (const std::string& other : gather(has_nccl() ? device_on_host(device.index()) : "")) {
    all += other + "\n";
  }
  broadcast(all, 0);
  std::vector<std::string> devices;
  std::istringstream lines(all);
  for (std::string line; std::getline(lines, line);) {
    devices.push_back(line);
  }
  DeviceSeat seat{device, {}};
  const std::vector<Meeting::Place>& places = impl_->meeting.places;
  for (size_t rank = 0; rank < devices.size(); ++rank) {
    std::string obstacle = devices[rank].empty() ? "has no NCCL" : "";
    for (size_t other = 0; other < devices.size(); ++other) {
      if (other != rank && places[other].machine == places[rank].machine && devices[other] == devices[rank]) {
        obstacle = obstacle.empty() ? fmt::format("shares its device with rank {}", other) : obstacle;
      }
    }
    seat.obstacles.push_back(obstacle);
  }
  impl_->connections->set_device(std::move(seat));
}

at::Device World::device() const {
  return impl_->device;
}

void World::create_groups(const mesh::Mesh& mesh, const RankPairs& pairs) {
  if (mesh.world_size() != size()) {
    throw_usage(
        "the layout needs {} x {} x {} = {} ranks (pp x dp x tp), {} were started", mesh.size(mesh::Axis::pp),
        mesh.size(mesh::Axis::dp), mesh.size(mesh::Axis::tp), mesh.world_size(), size());
  }
  for (const mesh::Axis axis : mesh::kAxes) {
    Transport& transport = impl_->axes[static_cast<size_t>(axis)];
    const std::vector<int> ranks = mesh.group(rank(), axis);
    const int index = static_cast<int>(std::find(ranks.begin(), ranks.end(), rank()) - ranks.begin());
    if (ranks.size() == 1) {
      transport = Transport(nullptr, ranks, 0);
      impl_->axis_groups[static_cast<size_t>(axis)] = Group(nullptr, ranks, 0, impl_->monitor);
    } else {
      const Connection& connection = impl_->connections->get(ranks, axis == mesh::Axis::pp ? pairs : RankPairs());
      const int tags = kAxisTags + kTagRange * static_cast<int>(axis);
      transport = Transport(connection.messages, ranks, index, tags, connection.device.messages);
      impl_->axis_groups[static_cast<size_t>(axis)] = connection.group;
    }
  }
}

const Transport& World::transport(mesh::Axis axis) const {
  return impl_->axes[static_cast<size_t>(axis)];
}

const Transport& World::transport() const {
  return impl_->all;
}

const Group& World::group(mesh::Axis axis) const {
  return impl_->axis_groups[static_cast<size_t>(axis)];
}

const Group& World::group() const {
  return impl_->world_group;
}

Group World::group(const std::vector<int>& ranks) {
  const bool known =
      std::all_of(ranks.begin(), ranks.end(), [&](int member) { return member >= 0 && member < size(); });
  if (!known || std::count(ranks.begin(), ranks.end(), rank()) != 1 ||
      std::set<int>(ranks.begin(), ranks.end()).size() != ranks.size()) {
    throw_internal("[{}] is no group of rank {} in a world of {} ranks", fmt::join(ranks, ", "), rank(), size());
  }
  return ranks.size() == 1 ? Group(nullptr, ranks, 0, impl_->monitor) : impl_->connections->get(ranks).group;
}

void World::broadcast(std::string& bytes, int root) {
  if (root < 0 || root >= size()) {
    throw_internal("broadcast from rank {} in a world of {}", root, size());
  }
  const ActionScope action(monitor(), "broadcast", {.from = root == rank() ? -1 : root});
  comm::broadcast(impl_->collectives, bytes, root);
}

std::vector<std::string> World::gather(const std::string& bytes) {
  const ActionScope action(monitor(), "gather", {.to = rank() == 0 ? -1 : 0});
  return comm::gather(impl_->collectives, bytes);
}

void World::barrier() {
  const ActionScope action(monitor(), "barrier");
  comm::barrier(impl_->collectives);
}

Monitor& World::monitor() {
  return *impl_->monitor;
}

bool World::report_failure(const Error& error) noexcept {
  return impl_->monitor->report_failure(error);
}

void World::finish() {
  Impl& impl = *impl_;
  if (impl.finished) {
    return;
  }
  if (impl.size > 1) {
    {
      const ActionScope action(monitor(), "finish");
      impl.connections->flush();
    }
    impl.monitor->finish();
    impl.monitor->end_waits();
    impl.all = impl.collectives = Transport();
    impl.axes = {};
    impl.axis_groups = {};
    impl.world_group = Group();
    impl.connections.reset();
  }
  impl.finished = true;
  set_latest(nullptr);
}

int World::fail(const Error& error, const std::optional<Environment>& environment) {
  bool first = true;
  if (const std::shared_ptr<Monitor> monitor = get_latest()) {
    first = monitor->report_failure(error);
  } else if (environment) {
    first = first_to_fail(error, *environment);
  }
  if (first) {
    print_error_line(error.what());
  }
  return first ? exit_status(error.code()) : 4;
}

}  // namespace shardpipe::comm
