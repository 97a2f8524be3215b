#pragma once

#include <string>
#include <vector>

#include "comm/transport.h"

namespace shardpipe::comm {

// Made of messages only, because those can be interrupted when a rank fails; c10d's collectives cannot. `transport`
// serves nothing else: they use its tags as they like.

/// Replaces `bytes` on every rank of the group by those of `root`.
void broadcast(const Transport& transport, std::string& bytes, int root);
/// Rank 0 gets everyone's bytes in order of rank, the others an empty list.
std::vector<std::string> gather(const Transport& transport, const std::string& bytes);
/// Returns when all ranks have called it.
void barrier(const Transport& transport);

}  // namespace shardpipe::comm
