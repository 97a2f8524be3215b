#pragma once

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "schedule/lower.h"

namespace shardpipe::schedule {

/// What a step costs, in any unit of time and of memory.
struct Costs {
  std::vector<double> forward;          ///< F, by stage
  std::vector<double> input_gradient;   ///< I, by stage
  std::vector<double> weight_gradient;  ///< W, by stage; a full backward B costs I + W
  std::vector<double> reduce_gradient;  ///< REDUCE_GRAD, by stage; empty: nothing
  double transfer = 0;                  ///< of one message, from the end of its send on; within a rank nothing
  std::map<std::pair<int, int>, double> forward_transfer;   ///< by edge, where it differs
  std::map<std::pair<int, int>, double> backward_transfer;  ///< of the edge's gradients, where it differs
  /// Messages from one rank to another pass one at a time, in the order in which they were sent, as where bandwidth
  /// bounds them; otherwise each is under way by itself, as where latency does.
  bool messages_queue = false;
  std::vector<double> activations;  ///< memory that a microbatch holds between F and the end of B or W, by stage;
                                    ///< empty: 1 each
  /// Where given, the duration of a compute action or REDUCE_GRAD instead of the above.
  std::function<double(const Action&)> duration;
};

/// The same for all stages.
Costs uniform_costs(int num_stages, double forward, double input_gradient, double weight_gradient, double transfer = 0);

/// Of a compute action or REDUCE_GRAD.
double duration_of(const Costs& costs, const Action& action);
/// Of an edge's values, or of their gradients; nothing within a rank.
double transfer_of(const Schedule& schedule, const Costs& costs, const std::pair<int, int>& edge, bool backward);

/// A compute action takes its time, a send none, a receive waits from `start` to `end`.
struct TimedAction {
  Action action;
  double start = 0;
  double end = 0;
};

/// From `time` on a rank holds `amount` of activations.
struct MemoryPoint {
  double time = 0;
  double amount = 0;
};

struct Simulation {
  double makespan = 0;
  double bubble_fraction = 0;         ///< idle time / (ranks x makespan)
  std::vector<int> peak_activations;  ///< by rank: most (stage, microbatch) pairs between F and the end of B or W
  std::vector<double> peak_memory;    ///< by rank: the same in Costs::activations
  std::vector<double> busy;           ///< by rank: time of its compute actions and reductions
  std::vector<std::vector<TimedAction>> ranks;
  std::vector<std::vector<MemoryPoint>> memory;  ///< by rank, a point where the amount changes
};

/// Runs the compute and communication lists on paper: each rank does its actions in order, transfers overlap them.
/// Of a schedule without backwards, activations are held until the end of F. Throws Error(input) where the lists do not
/// run to their end; validate() says why, and checks the rest.
Simulation simulate(const Schedule& lowered, const StageEdges& edges, const Costs& costs);

}  // namespace shardpipe::schedule
