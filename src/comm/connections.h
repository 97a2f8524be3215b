#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/gloo.h"
#include "comm/group.h"
#include "comm/meeting.h"
#include "comm/monitor.h"
#include "comm/store.h"
#include "comm/transport.h"

namespace shardpipe::comm {

class ShmMessages;

/// What the user asks for with --transport.
enum class TransportChoice {
  automatic,  ///< shared memory for groups of one host, Gloo for others
  gloo,
  shm,
};
/// "auto", "gloo", "shm". Throws Error(usage) for other names, and for "nccl", which this build does not have.
TransportChoice transport_choice(const std::string& name);
/// What works on this machine: "shm" where memory can be shared, "gloo".
std::vector<std::string> available_transports();

// Tags of transports that share the connections of the same ranks lie in ranges of their own.
inline constexpr int kTagRange = Transport::kMaxTag + 1;
inline constexpr int kBytesTags = kTagRange;
inline constexpr int kGroupTags = 2 * kTagRange;
inline constexpr int kAxisTags = 3 * kTagRange;  ///< of the first of three axes; one range each
inline constexpr int kC10dTags = 6 * kTagRange;

/// The ranks of one list connected with each other.
struct Connection {
  std::shared_ptr<TransportBackend> messages;
  std::shared_ptr<ShmMessages> shm;  ///< `messages`, where they go through shared memory
  Group group;
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

  /// Called by all ranks of the list, which has several and this one among them. Throws Error(usage) where shared
  /// memory was asked for and the ranks have none, Error(rank) when they do not come within the timeout.
  const Connection& get(const std::vector<int>& ranks);

  /// Returns when everything sent has left. Throws Error(rank).
  void flush();

 private:
  Connection connect(const std::vector<int>& ranks);
  bool on_one_machine(const std::vector<int>& ranks) const;

  Store store_;
  std::shared_ptr<Monitor> monitor_;
  Meeting meeting_;
  int rank_;
  TransportChoice choice_;
  std::string world_;
  std::string master_;
  std::chrono::milliseconds timeout_;
  std::unique_ptr<Gloo> gloo_;  ///< once it is needed
  std::map<std::vector<int>, Connection> connections_;
};

}  // namespace shardpipe::comm
