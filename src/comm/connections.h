#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "comm/gloo.h"
#include "comm/group.h"
#include "comm/meeting.h"
#include "comm/monitor.h"
#include "comm/nccl.h"
#include "comm/store.h"
#include "comm/transport.h"

namespace shardpipe::comm {

class ShmMessages;

/// What the user asks for with --transport.
enum class TransportChoice {
  automatic,  ///< shared memory for groups of one host, Gloo for others; of devices NCCL where it can be had
  gloo,       ///< what is on a device goes through host memory
  shm,        ///< likewise
  nccl,       ///< between devices; on the host automatic
};
/// "auto", "gloo", "shm", "nccl". Throws Error(usage) for other names, and for "nccl" where this build does not have
/// it.
TransportChoice transport_choice(const std::string& name);
/// What works on this machine: "shm" where memory can be shared, "gloo".
std::vector<std::string> available_transports();

// Tags of transports that share the connections of the same ranks lie in ranges of their own.
inline constexpr int kTagRange = Transport::kMaxTag + 1;
inline constexpr int kBytesTags = kTagRange;
inline constexpr int kGroupTags = 2 * kTagRange;
inline constexpr int kAxisTags = 3 * kTagRange;  ///< of the first of three axes; one range each
inline constexpr int kC10dTags = 6 * kTagRange;
inline constexpr int kDeviceTags = 7 * kTagRange;  ///< of what goes ahead of messages from device to device

/// Where a rank's tensors are.
struct DeviceSeat {
  at::Device device = at::kCPU;
  std::vector<std::string> obstacles;  ///< by rank: why it cannot talk from device to device; empty where it can
};

/// Places in a list of ranks that send each other messages.
using RankPairs = std::set<std::pair<int, int>>;

/// The ranks of one list connected with each other.
struct Connection {
  std::shared_ptr<TransportBackend> messages;
  std::shared_ptr<ShmMessages> shm;  ///< `messages`, where they go through shared memory
  std::shared_ptr<GroupBackend> collectives;
  Group group;
  DeviceConnection device;  ///< empty: what is on devices goes through host memory
  std::optional<RankPairs> device_pairs;
  int num_device_connections = 0;  ///< that were made so far
};

/// The connections of one rank: one for each list of ranks that is asked for.
class Connections {
 public:
  /// `world`: prefix of the keys; `master`: where the ranks met.
  Connections(
      const Store& store,
      std::shared_ptr<Monitor> monitor,
      Meeting meeting,
      int rank,
      TransportChoice choice,
      std::string world,
      std::string master,
      std::chrono::milliseconds timeout);
  /// After Monitor::end_waits().
  ~Connections();

  /// Lists that get() is asked for from now on are connected from device to device too, where they can be.
  void set_device(DeviceSeat seat) { device_ = std::move(seat); }

  /// Called by all ranks of the list, which has several and this one among them. Throws Error(usage) where shared
  /// memory, or NCCL, was asked for and the ranks have none, Error(rank) when they do not come within the timeout.
  /// `pairs`: places in the list that send each other messages from device to device.
  const Connection& get(const std::vector<int>& ranks, const RankPairs& pairs = {});

  /// Returns when everything sent has left. Throws Error(rank).
  void flush();

 private:
  Connection connect(const std::vector<int>& ranks);
  /// The first of the ranks that cannot talk from device to device, or -1.
  int find_hindered(const std::vector<int>& ranks) const;
  void connect_devices(const std::vector<int>& ranks, const RankPairs& pairs, Connection& connection);
  bool on_one_machine(const std::vector<int>& ranks) const;

  Store store_;
  std::shared_ptr<Monitor> monitor_;
  Meeting meeting_;
  int rank_;
  TransportChoice choice_;
  std::string world_;
  std::string master_;
  std::chrono::milliseconds timeout_;
  DeviceSeat device_;
  std::unique_ptr<Gloo> gloo_;  ///< once it is needed
  std::map<std::vector<int>, Connection> connections_;
};

}  // namespace shardpipe::comm
