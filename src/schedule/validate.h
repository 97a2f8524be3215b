#pragma once

#include "schedule/action.h"
#include "schedule/builders.h"

namespace shardpipe::schedule {

/// Checks the compute and communication lists of one forward step before any rank loads weights: each (stage,
/// microbatch) has one F on the stage's rank, each edge's send and receive are there once, before and after the right
/// forward, and the lists run to their end (a receive waits for its send, a send for nothing). Throws Error(input)
/// naming rank, position and action; a deadlock is shown as what each rank waits for.
void validate(const Schedule& schedule, const StageEdges& edges);

}  // namespace shardpipe::schedule
