#pragma once

#include <vector>

#include "schedule/simulate.h"

namespace shardpipe::schedule {

// Ranks that share a host: one that computes while others do not takes the time of Costs; however many compute, they
// all together do no more than `together` times the work of one, and divide it evenly, as cores and bandwidth of memory
// are divided. What one of them leaves goes to the others at once.

/// The costs with the duration of each action as it is on such a host, so that simulate() runs the same step. Messages
/// are each under way by themselves.
Costs on_host(const Schedule& lowered, const StageEdges& edges, const Costs& costs, double together);

/// When each of so many steps ends that follow one another, by add_token_exchange: with the step's last tokens on all
/// ranks. The first one's tokens are there from the start. `token_transfer`: of the message with the tokens.
std::vector<double> step_ends(
    const Schedule& with_tokens,
    const StageEdges& edges,
    const Costs& costs,
    double token_transfer,
    double together,
    int steps);

}  // namespace shardpipe::schedule
