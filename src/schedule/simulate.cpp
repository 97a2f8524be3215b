#include "schedule/simulate.h"

#include <algorithm>

#include "base/error.h"
#include "schedule/walk.h"

namespace shardpipe::schedule {
namespace {

constexpr double kNotSent = -1;

bool is_backward(ActionKind kind) {
  return kind == ActionKind::B || kind == ActionKind::I || kind == ActionKind::W || kind == ActionKind::SEND_B ||
         kind == ActionKind::RECV_B;
}

class Simulator {
 public:
  Simulator(const Schedule& schedule, const StageEdges& edges, const Costs& costs)
      : schedule_(schedule),
        edges_(edges),
        costs_(costs),
        table_(edge_table(schedule.num_stages, edges)),
        arrived_(edges.size() * static_cast<size_t>(schedule.num_microbatches), kNotSent),
        clock_(schedule.ranks.size(), 0),
        held_(schedule.ranks.size()) {
    const size_t num_ranks = schedule.ranks.size();
    result_.peak_activations.resize(num_ranks);
    result_.peak_memory.resize(num_ranks);
    result_.busy.resize(num_ranks);
    result_.ranks.resize(num_ranks);
    result_.memory.resize(num_ranks);
    for (size_t rank = 0; rank < num_ranks; ++rank) {
      const std::vector<Action>& actions = schedule.ranks[rank];
      result_.ranks[rank].reserve(actions.size());
      has_backwards_ = has_backwards_ || std::any_of(actions.begin(), actions.end(), [](const Action& action) {
                         return is_backward(action.kind);
                       });
    }
    if (has_backwards_) {
      gradients_arrived_ = arrived_;
    }
    for (const std::pair<int, int>& edge : edges) {
      forward_time_.push_back(transfer_of(schedule, costs, edge, false));
      backward_time_.push_back(transfer_of(schedule, costs, edge, true));
    }
  }

  Simulation run() {
    const std::vector<size_t> position =
        walk(schedule_, edges_, table_, [&](size_t rank, size_t, const Action& action) { return step(rank, action); });
    for (size_t rank = 0; rank < position.size(); ++rank) {
      if (position[rank] < schedule_.ranks[rank].size()) {
        throw_input(
            "the schedule deadlocks: rank {} waits at position {}, {}", rank, position[rank],
            to_string(schedule_.ranks[rank][position[rank]]));
      }
      result_.makespan = std::max(result_.makespan, clock_[rank]);
    }
    double busy = 0;
    for (const double time : result_.busy) {
      busy += time;
    }
    const double total = result_.makespan * static_cast<double>(position.size());
    result_.bubble_fraction = total > 0 ? std::max(0.0, (total - busy) / total) : 0;
    return std::move(result_);
  }

 private:
  struct Held {
    int pairs = 0;
    double memory = 0;
  };

  int rank_of(int stage) const { return schedule_.rank_of_stage[static_cast<size_t>(stage)]; }

  size_t slot(int edge, int microbatch) const {
    return static_cast<size_t>(edge) * static_cast<size_t>(schedule_.num_microbatches) +
           static_cast<size_t>(microbatch);
  }

  // One more or one less pair on the rank from `time` on.
  void hold(size_t rank, const Action& action, int change, double time) {
    Held& held = held_[rank];
    held.pairs += change;
    held.memory += change * (costs_.activations.empty() ? 1 : costs_.activations[static_cast<size_t>(action.stage)]);
    result_.peak_activations[rank] = std::max(result_.peak_activations[rank], held.pairs);
    result_.peak_memory[rank] = std::max(result_.peak_memory[rank], held.memory);
    std::vector<MemoryPoint>& points = result_.memory[rank];
    if (!points.empty() && points.back().time == time) {
      points.back().amount = held.memory;
    } else {
      points.push_back({time, held.memory});
    }
  }

  void send(size_t rank, int edge, int to, double takes, int microbatch, std::vector<double>& arrived) {
    double start = clock_[rank];
    if (costs_.messages_queue && takes > 0) {
      double& free = link_free_[{static_cast<int>(rank), to}];
      start = std::max(start, free);
      free = start + takes;
    }
    arrived[slot(edge, microbatch)] = start + takes;
  }

  // When all messages are there; kNotSent where one has not been sent.
  double receive(const std::vector<int>& messages, int microbatch, const std::vector<double>& arrived) const {
    double time = 0;
    for (const int edge : messages) {
      const double at = arrived[slot(edge, microbatch)];
      if (at == kNotSent) {
        return kNotSent;
      }
      time = std::max(time, at);
    }
    return time;
  }

  bool step(size_t rank, const Action& action) {
    const auto stage = static_cast<size_t>(action.stage);
    const double start = clock_[rank];
    switch (action.kind) {
      case ActionKind::RECV_F:
      case ActionKind::RECV_B: {
        const bool forward = action.kind == ActionKind::RECV_F;
        const double there = receive(
            (forward ? table_.incoming : table_.outgoing)[stage], action.microbatch,
            forward ? arrived_ : gradients_arrived_);
        if (there == kNotSent) {
          return false;
        }
        clock_[rank] = std::max(start, there);
        break;
      }
      case ActionKind::SEND_F:
        for (const int edge : table_.outgoing[stage]) {
          const auto e = static_cast<size_t>(edge);
          send(rank, edge, rank_of(edges_[e].second), forward_time_[e], action.microbatch, arrived_);
        }
        break;
      case ActionKind::SEND_B:
        for (const int edge : table_.incoming[stage]) {
          const auto e = static_cast<size_t>(edge);
          send(rank, edge, rank_of(edges_[e].first), backward_time_[e], action.microbatch, gradients_arrived_);
        }
        break;
      case ActionKind::SEND_T:
      case ActionKind::RECV_T:
        break;  // from step to step
      default:
        compute(rank, action);
    }
    result_.ranks[rank].push_back({action, start, clock_[rank]});
    return true;
  }

  void compute(size_t rank, const Action& action) {
    if (action.kind == ActionKind::F) {
      hold(rank, action, 1, clock_[rank]);
    }
    const double takes = duration_of(costs_, action);
    clock_[rank] += takes;
    result_.busy[rank] += takes;
    const bool frees =
        has_backwards_ ? action.kind == ActionKind::B || action.kind == ActionKind::W : action.kind == ActionKind::F;
    if (frees) {
      hold(rank, action, -1, clock_[rank]);
    }
  }

  const Schedule& schedule_;
  const StageEdges& edges_;
  const Costs& costs_;
  EdgeTable table_;
  bool has_backwards_ = false;
  std::vector<double> forward_time_;  // by edge
  std::vector<double> backward_time_;
  std::vector<double> arrived_;  // by edge and microbatch
  std::vector<double> gradients_arrived_;
  std::map<std::pair<int, int>, double> link_free_;  // by ranks: from when on
  std::vector<double> clock_;                        // by rank
  std::vector<Held> held_;
  Simulation result_;
};

void check(const Schedule& schedule, const Costs& costs) {
  const auto check_size = [&](const std::vector<double>& by_stage, bool may_be_empty) {
    if (by_stage.size() != static_cast<size_t>(schedule.num_stages) && !(may_be_empty && by_stage.empty())) {
      throw_internal("costs of {} stages for a schedule of {} stages", by_stage.size(), schedule.num_stages);
    }
  };
  for (const auto* by_stage : {&costs.forward, &costs.input_gradient, &costs.weight_gradient}) {
    check_size(*by_stage, static_cast<bool>(costs.duration));
  }
  check_size(costs.reduce_gradient, true);
  check_size(costs.activations, true);
}

}  // namespace

Costs uniform_costs(int num_stages, double forward, double input_gradient, double weight_gradient, double transfer) {
  const auto all = [&](double cost) { return std::vector<double>(static_cast<size_t>(num_stages), cost); };
  Costs costs;
  costs.forward = all(forward);
  costs.input_gradient = all(input_gradient);
  costs.weight_gradient = all(weight_gradient);
  costs.transfer = transfer;
  return costs;
}

double duration_of(const Costs& costs, const Action& action) {
  if (costs.duration) {
    return costs.duration(action);
  }
  const auto stage = static_cast<size_t>(action.stage);
  switch (action.kind) {
    case ActionKind::F:
      return costs.forward[stage];
    case ActionKind::I:
      return costs.input_gradient[stage];
    case ActionKind::W:
      return costs.weight_gradient[stage];
    case ActionKind::B:
      return costs.input_gradient[stage] + costs.weight_gradient[stage];
    default:
      return costs.reduce_gradient.empty() ? 0 : costs.reduce_gradient[stage];
  }
}

double transfer_of(const Schedule& schedule, const Costs& costs, const std::pair<int, int>& edge, bool backward) {
  const auto rank_of = [&](int stage) { return schedule.rank_of_stage[static_cast<size_t>(stage)]; };
  if (rank_of(edge.first) == rank_of(edge.second)) {
    return 0;
  }
  const auto& own = backward ? costs.backward_transfer : costs.forward_transfer;
  const auto found = own.find(edge);
  return found == own.end() ? costs.transfer : found->second;
}

Simulation simulate(const Schedule& lowered, const StageEdges& edges, const Costs& costs) {
  check(lowered, costs);
  return Simulator(lowered, edges, costs).run();
}

}  // namespace shardpipe::schedule
