#pragma once

#include "comm/transport.h"

namespace shardpipe::comm {

/// What a message between two ranks of this host takes.
struct Link {
  double message_seconds = 0;   ///< from the send of a few bytes to the end of their receive
  double bytes_per_second = 0;  ///< of a large one after that
  double busy_seconds = 0;      ///< of cores, on both ends together: what the message takes from those that compute
};

/// Times messages there and back between the two ranks of a group, each run by a thread of this process: some 50 ms,
/// medians.
Link measure_link(const Transport& rank0, const Transport& rank1);

/// The same over connections such as `local_ranks` ranks of this host choose. Throws Error(rank) where they cannot be
/// made.
Link measure_link(int local_ranks);

}  // namespace shardpipe::comm
