#pragma once

#include <deque>
#include <vector>

#include "schedule/lower.h"

namespace shardpipe::schedule {

/// Runs the lists of all ranks as far as they go: `step(rank, position, action)` does an action, or returns false where
/// the rank has to wait for another one's send. Returns the position each rank got to. Takes time in proportion to the
/// number of actions.
template <typename Step>
std::vector<size_t> walk(const Schedule& schedule, const StageEdges& edges, const EdgeTable& table, Step step) {
  const size_t num_ranks = schedule.ranks.size();
  std::vector<size_t> position(num_ranks, 0);
  std::vector<bool> queued(num_ranks, true);
  std::deque<size_t> queue;
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    queue.push_back(rank);
  }
  const auto wake = [&](int stage) {
    const auto rank = static_cast<size_t>(schedule.rank_of_stage[static_cast<size_t>(stage)]);
    if (!queued[rank]) {
      queued[rank] = true;
      queue.push_back(rank);
    }
  };
  while (!queue.empty()) {
    const size_t rank = queue.front();
    queue.pop_front();
    const std::vector<Action>& actions = schedule.ranks[rank];
    size_t& at = position[rank];
    for (; at < actions.size() && step(rank, at, actions[at]); ++at) {
      const auto stage = static_cast<size_t>(actions[at].stage);
      if (actions[at].kind == ActionKind::SEND_F) {
        for (const int edge : table.outgoing[stage]) {
          wake(edges[static_cast<size_t>(edge)].second);
        }
      } else if (actions[at].kind == ActionKind::SEND_B) {
        for (const int edge : table.incoming[stage]) {
          wake(edges[static_cast<size_t>(edge)].first);
        }
      }
    }
    queued[rank] = false;
  }
  return position;
}

}  // namespace shardpipe::schedule
