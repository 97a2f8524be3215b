#include "comm/meeting.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "comm/await_keys.h"
#include "comm/cores.h"

namespace shardpipe::comm {
namespace {

struct Member {
  std::string host;     ///< tells hosts apart
  std::string machine;  ///< and machines
  std::string network;  ///< and what a loopback address reaches: containers of one host may have networks of their own
  std::string name;     ///< "node1, process 123"
  int world_size = 0;
  std::vector<int> cores;  ///< that it may run on
};

/// Containers of one machine share its boot number but not their names.
std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string boot_number() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  std::getline(file, boot);
  return boot;
}

std::string network_number() {
  std::array<char, 64> name{};
  const ssize_t length = ::readlink("/proc/self/ns/net", name.data(), name.size());
  return {name.data(), static_cast<size_t>(std::max<ssize_t>(length, 0))};
}

std::string to_text(const Member& member) {
  const Json json = {{"host", member.host}, {"machine", member.machine},       {"network", member.network},
                     {"name", member.name}, {"world_size", member.world_size}, {"cores", member.cores}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Member member_from(const std::string& text) {
  const Json json = parse_json(text, "rank's entry in the store");
  return {json.value("host", std::string()),    json.value("machine", std::string()),
          json.value("network", std::string()), json.value("name", std::string()),
          json.value("world_size", 0),          json.value("cores", std::vector<int>())};
}

std::string list_missing(Store& store, const std::vector<std::string>& keys) {
  constexpr int kNamed = 8;
  std::string list;
  int missing = 0;
  for (size_t rank = 0; rank < keys.size(); ++rank) {
    if (!store.has({keys[rank]}) && ++missing <= kNamed) {
      list += fmt::format("{}{}", list.empty() ? "" : ", ", rank);
    }
  }
  return fmt::format("{} {}{}", missing == 1 ? "rank" : "ranks", list, missing > kNamed ? ", ..." : "");
}

}  // namespace

Meeting meet(
    Store& store,
    Monitor& monitor,
    const std::string& world,
    const Environment& environment,
    std::chrono::milliseconds timeout) {
  const int rank = environment.rank;
  const int size = environment.world_size;
  std::vector<std::string> keys;
  for (int member = 0; member < size; ++member) {
    keys.push_back(fmt::format("{}/member/{}", world, member));
  }
  const std::string boot = boot_number();
  const std::string machine = boot.empty() ? host_name() : boot;
  const Member own{
      host_name() + "/" + boot,
      machine,
      machine + "/" + network_number(),
      fmt::format("{}, process {}", host_name(), ::getpid()),
      size,
      allowed_cores()};
  const std::string first = store.set_first(keys[rank], to_text(own));
  if (first != to_text(own)) {
    throw Error(
        ErrorCode::rank, fmt::format("rank {} exists twice: as {} and as {}", rank, member_from(first).name, own.name),
        "give each process its own RANK, and each job its own port");
  }
  if (!await_keys(store, monitor, keys, timeout)) {
    throw_rank(
        "rank {}: {} of {} did not come to {}:{} within {} s", rank, list_missing(store, keys), size,
        environment.master_host, environment.master_port, static_cast<double>(timeout.count()) / 1000);
  }
  Meeting meeting{.local_rank = 0, .local_world_size = 0};
  std::set<int> cores;
  const std::vector<std::string> entries = store.get(keys);
  for (int member = 0; member < size; ++member) {
    const Member other = member_from(entries[member]);
    if (other.world_size != size) {
      throw_rank(
          "rank {} was started in a world of {} ranks, rank {} in one of {}", member, other.world_size, rank, size);
    }
    meeting.places.push_back({other.machine, other.name});
    const bool near = other.network == own.network;
    const bool serves = member == 0 && !environment.agent_store;
    meeting.one_network = meeting.one_network && near;
    meeting.speaks = meeting.speaks && (!near || serves || member >= rank);
    if (other.host == own.host) {
      meeting.local_rank += member < rank ? 1 : 0;
      ++meeting.local_world_size;
      cores.insert(other.cores.begin(), other.cores.end());
    }
  }
  meeting.local_cores = fillable_cores(cores.size());
  // The starter's numbers count where it gives some: it may have bound processors by them.
  if (environment.local_world_size > 0) {
    meeting.local_rank = environment.local_rank;
    meeting.local_world_size = environment.local_world_size;
  }
  return meeting;
}

}  // namespace shardpipe::comm
