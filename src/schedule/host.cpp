#include "schedule/host.h"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>

namespace shardpipe::schedule {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Runs the lists of all ranks again and again, from event to event: the end of an action or the arrival of a message.
class HostRun {
 public:
  HostRun(
      const Schedule& schedule,
      const StageEdges& edges,
      const Costs& costs,
      double token_transfer,
      double together,
      int steps)
      : schedule_(schedule),
        edges_(edges),
        table_(edge_table(schedule.num_stages, edges)),
        costs_(costs),
        token_transfer_(token_transfer),
        together_(together),
        steps_(steps),
        ranks_(schedule.ranks.size()),
        ends_(static_cast<size_t>(steps), 0) {
    const auto microbatches = static_cast<size_t>(schedule.num_microbatches);
    forward_.assign(edges.size() * microbatches, kNever);
    backward_ = forward_;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      ranks_[rank].tokens.assign(microbatches, 0);
      ranks_[rank].durations.resize(schedule.ranks[rank].size(), 0);
    }
  }

  // Up to the end, or to where all wait for each other: simulate() says so.
  void run() {
    for (;;) {
      for (bool moved = true; moved;) {
        moved = false;
        for (size_t rank = 0; rank < ranks_.size(); ++rank) {
          moved = proceed(rank) || moved;
        }
      }
      if (!advance()) {
        return;
      }
    }
  }

  const std::vector<double>& ends() const { return ends_; }
  // Of the actions of the last step, by rank and position.
  std::vector<std::vector<double>> durations() const {
    std::vector<std::vector<double>> all;
    for (const Rank& rank : ranks_) {
      all.push_back(rank.durations);
    }
    return all;
  }

 private:
  struct Rank {
    int step = 0;
    size_t position = 0;
    bool computes = false;
    double left = 0;        // of its action, in time alone
    double began = 0;       // its action
    double wakes = kNever;  // when the message is there that it waits for
    std::vector<double> tokens;
    std::vector<double> durations;
  };

  size_t slot(int edge, int microbatch) const {
    return static_cast<size_t>(edge) * static_cast<size_t>(schedule_.num_microbatches) +
           static_cast<size_t>(microbatch);
  }

  // Whether all messages are there, which are then taken; else the rank waits.
  bool receive(Rank& rank, const std::vector<double*>& messages) const {
    double last = 0;
    for (const double* message : messages) {
      last = std::max(last, *message);
    }
    if (last > now_) {
      rank.wakes = last;
      return false;
    }
    for (double* message : messages) {
      *message = kNever;
    }
    return true;
  }

  bool receive(Rank& rank, const std::vector<int>& edges, int microbatch, std::vector<double>& arrived) const {
    std::vector<double*> messages;
    for (const int edge : edges) {
      messages.push_back(&arrived[slot(edge, microbatch)]);
    }
    return receive(rank, messages);
  }

  void send(const std::vector<int>& edges, int microbatch, bool backward) {
    for (const int edge : edges) {
      const auto& [from, to] = edges_[static_cast<size_t>(edge)];
      (backward ? backward_ : forward_)[slot(edge, microbatch)] =
          now_ + transfer_of(schedule_, costs_, {from, to}, backward);
    }
  }

  // Does what takes no time; returns whether there was something.
  bool proceed(size_t number) {
    Rank& rank = ranks_[number];
    const std::vector<Action>& actions = schedule_.ranks[number];
    bool moved = false;
    while (!rank.computes && rank.step < steps_) {
      if (rank.position == actions.size()) {
        rank.position = 0;
        ++rank.step;
        continue;
      }
      if (!begin(number, actions[rank.position])) {
        break;
      }
      moved = true;
    }
    return moved;
  }

  // False where the rank has to wait.
  bool begin(size_t number, const Action& action) {
    Rank& rank = ranks_[number];
    const auto stage = static_cast<size_t>(action.stage);
    rank.wakes = kNever;
    switch (action.kind) {
      case ActionKind::RECV_F:
        if (!receive(rank, table_.incoming[stage], action.microbatch, forward_)) {
          return false;
        }
        break;
      case ActionKind::RECV_B:
        if (!receive(rank, table_.outgoing[stage], action.microbatch, backward_)) {
          return false;
        }
        break;
      case ActionKind::RECV_T:
        if (!receive(rank, {&rank.tokens[static_cast<size_t>(action.microbatch)]})) {
          return false;
        }
        break;
      case ActionKind::SEND_F:
        send(table_.outgoing[stage], action.microbatch, false);
        break;
      case ActionKind::SEND_B:
        send(table_.incoming[stage], action.microbatch, true);
        break;
      case ActionKind::SEND_T:
        send_tokens(number, action.microbatch);
        break;
      default:
        rank.left = duration_of(costs_, action);
        rank.began = now_;
        rank.computes = true;
        return true;
    }
    ++rank.position;
    return true;
  }

  void send_tokens(size_t from, int microbatch) {
    const double there = now_ + (ranks_.size() > 1 ? token_transfer_ : 0);
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      if (rank != from) {
        ranks_[rank].tokens[static_cast<size_t>(microbatch)] = there;
      }
    }
    double& end = ends_[static_cast<size_t>(ranks_[from].step)];
    end = std::max(end, there);
  }

  // To the next event; false when there is none.
  bool advance() {
    int computing = 0;
    double least = kNever;
    double next = kNever;
    for (const Rank& rank : ranks_) {
      if (rank.computes) {
        ++computing;
        least = std::min(least, rank.left);
      } else if (rank.step < steps_) {
        next = std::min(next, rank.wakes);
      }
    }
    const double speed = std::min(1.0, together_ / std::max(computing, 1));
    next = std::min(next, now_ + least / speed);
    if (next == kNever) {
      return false;
    }
    for (Rank& rank : ranks_) {
      if (!rank.computes) {
        continue;
      }
      // As computed above, so that the first one ends without a rest.
      if (now_ + rank.left / speed <= next) {
        rank.durations[rank.position] = next - rank.began;
        rank.computes = false;
        ++rank.position;
      } else {
        rank.left -= (next - now_) * speed;
      }
    }
    now_ = next;
    return true;
  }

  const Schedule& schedule_;
  const StageEdges& edges_;
  const EdgeTable table_;
  const Costs& costs_;
  double token_transfer_;
  double together_;
  int steps_;
  double now_ = 0;
  std::vector<Rank> ranks_;
  std::vector<double> forward_;  // when messages that were not yet taken arrive, by edge and microbatch
  std::vector<double> backward_;
  std::vector<double> ends_;
};

}  // namespace

Costs on_host(const Schedule& lowered, const StageEdges& edges, const Costs& costs, double together) {
  HostRun run(lowered, edges, costs, 0, together, 1);
  run.run();
  const auto durations = std::make_shared<std::map<std::array<int, 3>, double>>();
  const std::vector<std::vector<double>> by_rank = run.durations();
  for (size_t rank = 0; rank < by_rank.size(); ++rank) {
    for (size_t i = 0; i < by_rank[rank].size(); ++i) {
      const Action& action = lowered.ranks[rank][i];
      (*durations)[{action.stage, static_cast<int>(action.kind), action.microbatch}] = by_rank[rank][i];
    }
  }
  Costs shared = costs;
  shared.duration = [durations](const Action& action) {
    return durations->at({action.stage, static_cast<int>(action.kind), action.microbatch});
  };
  return shared;
}

std::vector<double> step_ends(
    const Schedule& with_tokens,
    const StageEdges& edges,
    const Costs& costs,
    double token_transfer,
    double together,
    int steps) {
  HostRun run(with_tokens, edges, costs, token_transfer, together, steps);
  run.run();
  return run.ends();
}

}  // namespace shardpipe::schedule
