#pragma once

#include <utility>
#include <vector>

#include "schedule/action.h"

namespace shardpipe::schedule {

/// (producing stage, consuming stage): at least one value goes from the one to the other. Any two stages may have an
/// edge, not only neighbours.
using StageEdges = std::vector<std::pair<int, int>>;

/// Every stage to the next.
StageEdges chain_edges(int num_stages);

/// Edge numbers by stage.
struct EdgeTable {
  std::vector<std::vector<int>> incoming;
  std::vector<std::vector<int>> outgoing;
};
/// Throws Error(input) when an edge does not lead from a stage to a later one of `num_stages`.
EdgeTable edge_table(int num_stages, const StageEdges& edges);

/// Compute lists -> compute and communication lists. A send is posted and overlaps what follows, so SEND_F comes right
/// after a forward with outgoing edges and SEND_B right after the backward (B or I) of a stage with incoming edges; a
/// message is under way from then on and a receive blocks, so RECV_F comes right before the forward and RECV_B right
/// before the backward that needs it. Stages of one rank exchange values by the same actions. With `reduce_gradients`,
/// REDUCE_GRAD follows a stage's last B or W, so that the rank's remaining work hides the reduction.
Schedule lower(const Schedule& compute, const StageEdges& edges, bool reduce_gradients = false);

/// The sends and receives between two stages of one rank, which torch.distributed.pipelining leaves out of its lists,
/// put in where they are missing. Other lists stay as they are.
Schedule add_local_messages(const Schedule& schedule, const StageEdges& edges);

/// A step of generation: before each lane's forward every rank but the last stage's receives the tokens that its
/// previous step chose (RECV_T); the last stage sends them right after its forward (SEND_T). The lists are run step
/// after step; the first step has no RECV_T (`first`). Lanes of consecutive steps overlap since no rank waits for a
/// lane other than the one it runs next.
Schedule add_token_exchange(const Schedule& lowered, bool first);

}  // namespace shardpipe::schedule
