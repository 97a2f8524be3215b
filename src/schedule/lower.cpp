#include "schedule/lower.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"

namespace shardpipe::schedule {
namespace {

bool has(const std::vector<std::vector<int>>& edges, int stage) {
  return !edges[static_cast<size_t>(stage)].empty();
}

// The message that a compute action waits for, and the one that carries its results.
std::optional<Action> received_for(const Action& action, const EdgeTable& table) {
  if (action.kind == ActionKind::F && has(table.incoming, action.stage)) {
    return Action{action.stage, ActionKind::RECV_F, action.microbatch};
  }
  if ((action.kind == ActionKind::B || action.kind == ActionKind::I) && has(table.outgoing, action.stage)) {
    return Action{action.stage, ActionKind::RECV_B, action.microbatch};
  }
  return {};
}

std::optional<Action> sent_after(const Action& action, const EdgeTable& table) {
  if (action.kind == ActionKind::F && has(table.outgoing, action.stage)) {
    return Action{action.stage, ActionKind::SEND_F, action.microbatch};
  }
  if ((action.kind == ActionKind::B || action.kind == ActionKind::I) && has(table.incoming, action.stage)) {
    return Action{action.stage, ActionKind::SEND_B, action.microbatch};
  }
  return {};
}

// All edges in `edges` stay on the stage's rank.
bool is_local(const Schedule& schedule, const StageEdges& edges, const std::vector<int>& of_stage) {
  return std::all_of(of_stage.begin(), of_stage.end(), [&](int edge) {
    const auto& [from, to] = edges[static_cast<size_t>(edge)];
    return schedule.rank_of_stage[static_cast<size_t>(from)] == schedule.rank_of_stage[static_cast<size_t>(to)];
  });
}

}  // namespace

StageEdges chain_edges(int num_stages) {
  StageEdges edges;
  for (int stage = 0; stage + 1 < num_stages; ++stage) {
    edges.emplace_back(stage, stage + 1);
  }
  return edges;
}

EdgeTable edge_table(int num_stages, const StageEdges& edges) {
  EdgeTable table;
  table.incoming.resize(static_cast<size_t>(num_stages));
  table.outgoing.resize(static_cast<size_t>(num_stages));
  for (size_t i = 0; i < edges.size(); ++i) {
    const auto& [from, to] = edges[i];
    if (from < 0 || from >= to || to >= num_stages) {
      throw_input(
          "an edge leads from stage {} to stage {}; it must lead to a later one of the schedule's {} stages", from, to,
          num_stages);
    }
    table.outgoing[static_cast<size_t>(from)].push_back(static_cast<int>(i));
    table.incoming[static_cast<size_t>(to)].push_back(static_cast<int>(i));
  }
  return table;
}

Schedule lower(const Schedule& compute, const StageEdges& edges, bool reduce_gradients) {
  const EdgeTable table = edge_table(compute.num_stages, edges);
  std::vector<int> weight_gradients(static_cast<size_t>(compute.num_stages), 0);
  Schedule lowered = compute;
  for (auto& actions : lowered.ranks) {
    std::vector<Action> with_messages;
    with_messages.reserve(actions.size() * 3);
    for (const Action& action : actions) {
      if (const auto message = received_for(action, table)) {
        with_messages.push_back(*message);
      }
      with_messages.push_back(action);
      if (const auto message = sent_after(action, table)) {
        with_messages.push_back(*message);
      }
      if (reduce_gradients && (action.kind == ActionKind::B || action.kind == ActionKind::W) &&
          ++weight_gradients[static_cast<size_t>(action.stage)] == compute.num_microbatches) {
        with_messages.push_back({action.stage, ActionKind::REDUCE_GRAD, 0});
      }
    }
    actions = std::move(with_messages);
  }
  return lowered;
}

Schedule add_local_messages(const Schedule& schedule, const StageEdges& edges) {
  const EdgeTable table = edge_table(schedule.num_stages, edges);
  Schedule complete = schedule;
  for (auto& actions : complete.ranks) {
    std::set<std::pair<int, ActionKind>> present;
    for (const Action& action : actions) {
      present.insert({action.stage, action.kind});
    }
    const auto missing = [&](const std::optional<Action>& message) {
      if (!message || present.count({message->stage, message->kind}) > 0) {
        return false;
      }
      const bool incoming = message->kind == ActionKind::RECV_F || message->kind == ActionKind::SEND_B;
      return is_local(
          schedule, edges, (incoming ? table.incoming : table.outgoing)[static_cast<size_t>(message->stage)]);
    };
    std::vector<Action> with_messages;
    for (const Action& action : actions) {
      if (const auto message = received_for(action, table); missing(message)) {
        with_messages.push_back(*message);
      }
      with_messages.push_back(action);
      if (const auto message = sent_after(action, table); missing(message)) {
        with_messages.push_back(*message);
      }
    }
    actions = std::move(with_messages);
  }
  return complete;
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
