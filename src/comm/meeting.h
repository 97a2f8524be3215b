#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "comm/environment.h"
#include "comm/monitor.h"
#include "comm/store.h"

namespace shardpipe::comm {

/// What the ranks learn of each other when they meet.
struct Meeting {
  int local_rank = 0;
  int local_world_size = 1;
  double local_cores = 0;   ///< what this host's ranks may run on and fill, all together
  bool one_network = true;  ///< all ranks reach each other at 127.0.0.1
  /// No lower rank shares this one's network, but for one that serves the store itself.
  bool speaks = true;
  /// By rank. Ranks of one machine have the same `machine`, also where they are in containers with names of their own;
  /// whether those can share memory is another question.
  struct Place {
    std::string machine;
    std::string name;  ///< "node1, process 123"
  };
  std::vector<Place> places;
};

/// Signs in under `world` and waits for all ranks. Throws Error(rank) naming those that do not come within the timeout,
/// a rank that exists twice, and a rank that was started with another world size.
Meeting meet(
    Store& store, Monitor& monitor, const std::string& world, const Environment&, std::chrono::milliseconds timeout);

}  // namespace shardpipe::comm
