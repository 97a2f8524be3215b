#include "comm/connections.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/log.h"
#include "comm/message_group.h"
#include "comm/shm_collectives.h"
#include "comm/shm_messages.h"
#include "comm/socket.h"

namespace shardpipe::comm {

TransportChoice transport_choice(const std::string& name) {
  if (name == "auto") {
    return TransportChoice::automatic;
  }
  if (name == "gloo") {
    return TransportChoice::gloo;
  }
  if (name == "shm") {
    return TransportChoice::shm;
  }
  if (name == "nccl") {
    if (!has_nccl()) {
      throw Error(ErrorCode::usage, "--transport nccl needs NCCL, which is not in this build", "use auto, gloo or shm");
    }
    return TransportChoice::nccl;
  }
  throw_usage("--transport is \"{}\", must be auto, gloo, shm or nccl", name);
}

std::vector<std::string> available_transports() {
  std::vector<std::string> names = {"gloo"};
  try {
    const ShmSegment segment = ShmGroup::make_segment(2);
    ShmSegment::attach(segment.name());
    names.insert(names.begin(), "shm");
  } catch (const std::exception& error) {
    log_info("no shared memory: {}", error.what());
  }
  return names;
}

Connections::Connections(
    const Store& store,
    std::shared_ptr<Monitor> monitor,
    Meeting meeting,
    int rank,
    TransportChoice choice,
    std::string world,
    std::string master,
    std::chrono::milliseconds timeout)
    : store_(store),
      monitor_(std::move(monitor)),
      meeting_(std::move(meeting)),
      rank_(rank),
      choice_(choice),
      world_(std::move(world)),
      master_(std::move(master)),
      timeout_(timeout) {}

Connections::~Connections() = default;

int Connections::find_hindered(const std::vector<int>& ranks) const {
  const auto found =
      std::ranges::find_if(ranks, [&](int member) { return !device_.obstacles[static_cast<size_t>(member)].empty(); });
  return found == ranks.end() ? -1 : *found;
}

const Connection& Connections::get(const std::vector<int>& ranks, const RankPairs& pairs) {
  const bool wants_nccl = choice_ == TransportChoice::nccl && !device_.device.is_cpu();
  if (const int hindered = wants_nccl ? find_hindered(ranks) : -1; hindered >= 0) {
    throw Error(
        ErrorCode::usage,
        fmt::format("--transport nccl: rank {} {}", hindered, device_.obstacles[static_cast<size_t>(hindered)]),
        "use --transport auto");
  }
  auto found = connections_.find(ranks);
  if (found == connections_.end()) {
    found = connections_.emplace(ranks, connect(ranks)).first;
    log_info("rank {}: ranks {} talk over {}", rank_, fmt::join(ranks, ", "), found->second.collectives->name());
  }
  if (!device_.device.is_cpu()) {
    connect_devices(ranks, pairs, found->second);
  }
  return found->second;
}

bool Connections::on_one_machine(const std::vector<int>& ranks) const {
  return std::all_of(ranks.begin(), ranks.end(), [&](int member) {
    return meeting_.places[static_cast<size_t>(member)].machine ==
           meeting_.places[static_cast<size_t>(ranks[0])].machine;
  });
}

void Connections::connect_devices(const std::vector<int>& ranks, const RankPairs& pairs, Connection& connection) {
  if (connection.device_pairs && std::ranges::includes(*connection.device_pairs, pairs)) {
    return;
  }
  RankPairs all = connection.device_pairs.value_or(RankPairs());
  all.insert(pairs.begin(), pairs.end());
  connection.device_pairs = all;
  if (choice_ == TransportChoice::gloo || choice_ == TransportChoice::shm || find_hindered(ranks) >= 0) {
    log_info("rank {}: ranks {} send what is on devices through host memory", rank_, fmt::join(ranks, ", "));
    return;
  }
  if (connection.device.flush) {
    connection.device.flush();  // another plan, whose stages talk otherwise
  }
  const int index = static_cast<int>(std::ranges::find(ranks, rank_) - ranks.begin());
  const std::string key =
      fmt::format("{}/group/{}/devices{}", world_, fmt::join(ranks, "-"), connection.num_device_connections++);
  connection.device = connect_nccl(
      store_, key, {ranks, index, device_.device, monitor_, {all.begin(), all.end()}},
      Transport(connection.messages, ranks, index, kDeviceTags), timeout_);
  connection.group = Group(connection.collectives, ranks, index, monitor_, connection.device.collectives);
}

Connection Connections::connect(const std::vector<int>& ranks) {
  const int index = static_cast<int>(std::find(ranks.begin(), ranks.end(), rank_) - ranks.begin());
  const std::string key = fmt::format("{}/group/{}", world_, fmt::join(ranks, "-"));
  Connection connection;
  std::string why;
  if (choice_ != TransportChoice::gloo) {
    if (on_one_machine(ranks)) {
      const ShmGroup::Seat seat{ranks, index, monitor_, meeting_.local_cores >= meeting_.local_world_size};
      if (const auto shm = ShmGroup::connect(store_, key, seat, timeout_, why)) {
        connection.messages = connection.shm = std::make_shared<ShmMessages>(shm);
        connection.collectives = std::make_shared<ShmCollectives>(shm);
        connection.group = Group(connection.collectives, ranks, index, monitor_);
        return connection;
      }
    } else {
      std::vector<std::string> names;
      for (const int member : ranks) {
        names.push_back(fmt::format("rank {} on {}", member, meeting_.places[static_cast<size_t>(member)].name));
      }
      why = fmt::format("they are not on one host: {}", fmt::join(names, "; "));
    }
    if (choice_ == TransportChoice::shm) {
      throw Error(
          ErrorCode::usage,
          fmt::format("--transport shm: ranks {} cannot share memory: {}", fmt::join(ranks, ", "), why),
          "use auto or gloo");
    }
  }
  if (!gloo_) {
    std::string address;
    if (meeting_.one_network) {
      address = "127.0.0.1";
    } else if (std::getenv("GLOO_SOCKET_IFNAME") == nullptr) {
      // c10d would take the address of the host's own name, which on many hosts is a loopback one.
      address = address_toward(master_);
    }
    gloo_ = std::make_unique<Gloo>(address, *monitor_);
  }
  connection.messages = gloo_->connect(store_, key, ranks, index, timeout_);
  connection.collectives =
      std::make_shared<MessageGroup>(Transport(connection.messages, ranks, index, kGroupTags), "gloo");
  connection.group = Group(connection.collectives, ranks, index, monitor_);
  return connection;
}

void Connections::flush() {
  for (const auto& [ranks, connection] : connections_) {
    if (connection.device.flush) {
      connection.device.flush();
    }
    if (connection.shm) {
      connection.shm->flush();
    }
  }
  if (gloo_) {
    gloo_->flush();
  }
}

}  // namespace shardpipe::comm
