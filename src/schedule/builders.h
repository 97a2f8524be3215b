#pragma once

#include <utility>
#include <vector>

#include "schedule/action.h"

namespace shardpipe::schedule {

/// Fill-drain (GPipe), stage s on rank s mod num_ranks (0 = as many as stages): each rank runs the forwards of its
/// stages, those of one stage in microbatch order, and, where asked for, after all of them the backwards, last stage
/// first. Throws Error(usage) when a number is below 1.
Schedule fill_drain(int num_stages, int num_microbatches, bool backward = false, int num_ranks = 0);

/// (producing stage, consuming stage): at least one value goes from the one to the other.
using StageEdges = std::vector<std::pair<int, int>>;

/// Compute lists -> compute and communication lists: RECV_F right before a forward with incoming edges, SEND_F right
/// after one with outgoing edges, so that the next forward hides the transfer; RECV_B before a backward of a stage with
/// outgoing edges, SEND_B after one with incoming edges.
Schedule lower(const Schedule& compute, const StageEdges& edges);

/// A step of generation: before each lane's forward every rank but the last stage's receives the tokens that its
/// previous step chose (RECV_T); the last stage sends them right after its forward (SEND_T). The lists are run step
/// after step; the first step has no RECV_T (`first`). Lanes of consecutive steps overlap since no rank waits for a
/// lane other than the one it runs next.
Schedule add_token_exchange(const Schedule& lowered, bool first);

}  // namespace shardpipe::schedule
