#pragma once

#include "schedule/action.h"
#include "schedule/builders.h"

namespace shardpipe::schedule {

/// Checks the compute and communication lists of one step before any rank loads weights: each (stage, microbatch) has
/// one F on the stage's rank and, when the step has backwards, one B after it, those of a stage in microbatch order;
/// each edge's send and receive are there once in either direction, before and after the right compute action; and the
/// lists run to their end (a receive waits for its send, a send for nothing). Throws Error(input) naming rank, position
/// and action; a deadlock is shown as what each rank waits for.
void validate(const Schedule& schedule, const StageEdges& edges);

}  // namespace shardpipe::schedule
