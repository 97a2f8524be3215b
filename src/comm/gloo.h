#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "comm/monitor.h"
#include "comm/store.h"
#include "comm/transport.h"

namespace shardpipe::comm {

/// The Gloo side of one rank: the network device and the communication thread that all its groups share.
class Gloo {
 public:
  /// `address`: the local address to be reached at; empty leaves the choice to c10d (GLOO_SOCKET_IFNAME, host name).
  Gloo(const std::string& address, Monitor& monitor);
  /// After Monitor::end_waits().
  ~Gloo();

  /// Connects the ranks of one group with each other; returns when all have come. `members`: numbers in the world, in
  /// the order of the group. Throws Error(rank) naming the group when that does not happen within the timeout.
  std::shared_ptr<TransportBackend> connect(
      const Store& store,
      const std::string& name,
      const std::vector<int>& members,
      int rank,
      std::chrono::milliseconds timeout);

  /// Returns when all sends of all groups have left. Throws Error(rank).
  void flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace shardpipe::comm
