#pragma once

#include "schedule/lower.h"

namespace shardpipe::schedule {

/// Runs the lists, in which every receive has its sends. Throws Error(input) when they do not run to their end, showing
/// a cycle of ranks that wait for each other: "rank 0 waits at position 3, 0RECV_B0, for 1SEND_B0 of rank 1, ..." and,
/// for each, what stands around that position.
void check_deadlock(const Schedule& schedule, const StageEdges& edges, const EdgeTable& table);

}  // namespace shardpipe::schedule
