#include "schedule/validate.h"

#include <algorithm>
#include <set>

#include "base/error.h"

namespace shardpipe::schedule {
namespace {

[[noreturn]] void fail(size_t rank, size_t position, const Action& action, const std::string& rule) {
  throw_input("schedule of rank {}, position {}, action {}: {}", rank, position, to_string(action), rule);
}

using Done = std::set<std::pair<int, int>>;  // (stage, microbatch)

struct Progress {
  Done forward;
  Done sent;
  Done received;
  Done backward;
  Done gradients_sent;
  Done gradients_received;
};

bool has_edge(const StageEdges& edges, int stage, bool incoming) {
  return std::any_of(
      edges.begin(), edges.end(), [&](const auto& edge) { return (incoming ? edge.second : edge.first) == stage; });
}

bool consumers_sent(const StageEdges& edges, const Progress& progress, int stage, int microbatch) {
  return std::all_of(edges.begin(), edges.end(), [&](const auto& edge) {
    return edge.first != stage || progress.gradients_sent.count({edge.second, microbatch}) > 0;
  });
}

bool producers_sent(const StageEdges& edges, const Progress& progress, int stage, int microbatch) {
  return std::all_of(edges.begin(), edges.end(), [&](const auto& edge) {
    return edge.second != stage || progress.sent.count({edge.first, microbatch}) > 0;
  });
}

// Runs the action if it can run now; false when it has to wait.
bool step(const Schedule& schedule, const StageEdges& edges, Progress& progress, size_t rank, size_t position) {
  const Action& action = schedule.ranks[rank][position];
  const std::pair<int, int> key{action.stage, action.microbatch};
  switch (action.kind) {
    case ActionKind::RECV_F:
      if (!has_edge(edges, action.stage, true)) {
        fail(rank, position, action, "no stage sends to this one");
      }
      if (!producers_sent(edges, progress, action.stage, action.microbatch)) {
        return false;
      }
      if (!progress.received.insert(key).second) {
        fail(rank, position, action, "the values were received before");
      }
      return true;
    case ActionKind::F:
      if (has_edge(edges, action.stage, true) && progress.received.count(key) == 0) {
        fail(rank, position, action, "its inputs were not received");
      }
      if (!progress.forward.insert(key).second) {
        fail(rank, position, action, "the forward ran before");
      }
      return true;
    case ActionKind::SEND_F:
      if (progress.forward.count(key) == 0) {
        fail(rank, position, action, "the forward did not run before");
      }
      if (!has_edge(edges, action.stage, false) || !progress.sent.insert(key).second) {
        fail(rank, position, action, "there is nothing to send");
      }
      return true;
    case ActionKind::RECV_B:
      if (!has_edge(edges, action.stage, false)) {
        fail(rank, position, action, "no stage sends gradients to this one");
      }
      if (!consumers_sent(edges, progress, action.stage, action.microbatch)) {
        return false;
      }
      if (!progress.gradients_received.insert(key).second) {
        fail(rank, position, action, "the gradients were received before");
      }
      return true;
    case ActionKind::B:
      if (progress.forward.count(key) == 0) {
        fail(rank, position, action, "the forward did not run before");
      }
      if (has_edge(edges, action.stage, false) && progress.gradients_received.count(key) == 0) {
        fail(rank, position, action, "its gradients were not received");
      }
      if (action.microbatch > 0 && progress.backward.count({action.stage, action.microbatch - 1}) == 0) {
        fail(
            rank, position, action, "the backward of the microbatch before has not run: sums would change their order");
      }
      if (!progress.backward.insert(key).second) {
        fail(rank, position, action, "the backward ran before");
      }
      return true;
    case ActionKind::SEND_B:
      if (progress.backward.count(key) == 0) {
        fail(rank, position, action, "the backward did not run before");
      }
      if (!has_edge(edges, action.stage, true) || !progress.gradients_sent.insert(key).second) {
        fail(rank, position, action, "there is nothing to send");
      }
      return true;
    case ActionKind::SEND_T:
    case ActionKind::RECV_T:
      return true;  // a step's tokens come from the step before
  }
  return true;
}

}  // namespace

void validate(const Schedule& schedule, const StageEdges& edges) {
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const Action& action = schedule.ranks[rank][i];
      if (action.stage >= schedule.num_stages || action.microbatch >= schedule.num_microbatches) {
        fail(
            rank, i, action,
            fmt::format("there are {} stages and {} microbatches", schedule.num_stages, schedule.num_microbatches));
      }
      if (schedule.rank_of_stage[static_cast<size_t>(action.stage)] != static_cast<int>(rank)) {
        fail(rank, i, action, fmt::format("stage {} is not on this rank", action.stage));
      }
    }
  }
  Progress progress;
  std::vector<size_t> position(schedule.ranks.size(), 0);
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
      while (position[rank] < schedule.ranks[rank].size() && step(schedule, edges, progress, rank, position[rank])) {
        ++position[rank];
        moved = true;
      }
    }
  }
  std::string waiting;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    if (position[rank] < schedule.ranks[rank].size()) {
      waiting += fmt::format(
          "{}rank {} at {}", waiting.empty() ? "" : ", ", rank, to_string(schedule.ranks[rank][position[rank]]));
    }
  }
  if (!waiting.empty()) {
    throw_input("the schedule deadlocks: {}", waiting);
  }
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    for (int microbatch = 0; microbatch < schedule.num_microbatches; ++microbatch) {
      if (progress.forward.count({stage, microbatch}) == 0) {
        throw_input("the schedule has no {}", to_string({stage, ActionKind::F, microbatch}));
      }
      if (has_edge(edges, stage, false) && progress.sent.count({stage, microbatch}) == 0) {
        throw_input("the schedule has no {}", to_string({stage, ActionKind::SEND_F, microbatch}));
      }
      if (!progress.backward.empty() && progress.backward.count({stage, microbatch}) == 0) {
        throw_input("the schedule has no {}", to_string({stage, ActionKind::B, microbatch}));
      }
      if (!progress.backward.empty() && has_edge(edges, stage, true) &&
          progress.gradients_sent.count({stage, microbatch}) == 0) {
        throw_input("the schedule has no {}", to_string({stage, ActionKind::SEND_B, microbatch}));
      }
    }
  }
}

}  // namespace shardpipe::schedule
