#include "schedule/builders.h"

#include <algorithm>

#include "base/error.h"

namespace shardpipe::schedule {

Schedule fill_drain(int num_stages, int num_microbatches, bool backward, int num_ranks) {
  if (num_stages < 1 || num_microbatches < 1) {
    throw_usage("a schedule of {} stages and {} microbatches: both must be at least 1", num_stages, num_microbatches);
  }
  const int ranks = num_ranks == 0 ? num_stages : num_ranks;
  Schedule schedule{num_stages, num_microbatches, {}, {}};
  schedule.ranks.resize(static_cast<size_t>(ranks));
  const auto add = [&](int stage, ActionKind kind) {
    for (int microbatch = 0; microbatch < num_microbatches; ++microbatch) {
      schedule.ranks[static_cast<size_t>(stage % ranks)].push_back({stage, kind, microbatch});
    }
  };
  for (int stage = 0; stage < num_stages; ++stage) {
    schedule.rank_of_stage.push_back(stage % ranks);
    add(stage, ActionKind::F);
  }
  for (int stage = num_stages - 1; stage >= 0 && backward; --stage) {
    add(stage, ActionKind::B);
  }
  return schedule;
}

Schedule lower(const Schedule& compute, const StageEdges& edges) {
  Schedule lowered = compute;
  for (auto& actions : lowered.ranks) {
    std::vector<Action> with_messages;
    for (const Action& action : actions) {
      const bool consumes =
          std::any_of(edges.begin(), edges.end(), [&](const auto& edge) { return edge.second == action.stage; });
      const bool produces =
          std::any_of(edges.begin(), edges.end(), [&](const auto& edge) { return edge.first == action.stage; });
      const bool backward = action.kind == ActionKind::B;
      if (backward ? produces : consumes) {
        with_messages.push_back({action.stage, backward ? ActionKind::RECV_B : ActionKind::RECV_F, action.microbatch});
      }
      with_messages.push_back(action);
      if (backward ? consumes : produces) {
        with_messages.push_back({action.stage, backward ? ActionKind::SEND_B : ActionKind::SEND_F, action.microbatch});
      }
    }
    actions = std::move(with_messages);
  }
  return lowered;
}

Schedule add_token_exchange(const Schedule& lowered, bool first) {
  Schedule step = lowered;
  const int last = lowered.num_stages - 1;
  const int last_rank = lowered.rank_of_stage[static_cast<size_t>(last)];
  for (size_t rank = 0; rank < step.ranks.size(); ++rank) {
    std::vector<Action> actions;
    std::vector<bool> received(static_cast<size_t>(lowered.num_microbatches), first);
    for (const Action& action : step.ranks[rank]) {
      if (static_cast<int>(rank) != last_rank && !received[static_cast<size_t>(action.microbatch)]) {
        received[static_cast<size_t>(action.microbatch)] = true;
        actions.push_back({action.stage, ActionKind::RECV_T, action.microbatch});
      }
      actions.push_back(action);
      if (action.stage == last && action.kind == ActionKind::F) {
        actions.push_back({last, ActionKind::SEND_T, action.microbatch});
      }
    }
    step.ranks[rank] = std::move(actions);
  }
  return step;
}

}  // namespace shardpipe::schedule
