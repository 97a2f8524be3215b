#pragma once

#include <memory>
#include <string>
#include <vector>

#include "shardpipe/error.h"
#include "shardpipe/export.h"

namespace shardpipe {

/// A training step's schedule and what its actions cost, in any unit of time.
struct SimulationOptions {
  std::string schedule;        ///< fill-drain, 1f1b, interleaved, looped-bfs, zb-h1, zb-v, or the path of a CSV file
  int pp = 0;                  ///< ranks; 0: the file's
  int chunks = 0;              ///< microbatches; 0: the file's
  int virtual_stages = 0;      ///< stages a rank; 0: the schedule's own (2 of interleaved, looped-bfs and zb-v, else 1)
  double forward = 1;          ///< of one microbatch on one stage
  double input_gradient = 1;   ///< a full backward is this
  double weight_gradient = 1;  ///< and this
  double transfer = 0;         ///< of one message between ranks, while both compute
};

/// One step, run on paper.
class SHARDPIPE_API ScheduleSimulation {
 public:
  /// Builds or reads the schedule, lowers it (a file with communication stays as it is), validates it and simulates it
  /// on a chain of stages. Throws Error(usage) for impossible numbers and names, Error(input) for a bad file.
  explicit ScheduleSimulation(const SimulationOptions& options);
  ~ScheduleSimulation();
  ScheduleSimulation(ScheduleSimulation&&) noexcept;

  int pp() const;
  int virtual_stages() const;  ///< most that a rank has
  int chunks() const;
  double makespan() const;
  double bubble_fraction() const;  ///< idle time / (pp x makespan)
  /// The makespan by the schedule's formula; NaN where it has none, for files and where messages cost something.
  double closed_form_makespan() const;
  /// By rank: most (stage, microbatch) pairs between F and the end of B or of W.
  const std::vector<int>& peak_activations() const;
  /// In order, communication included: "0F0", "0SEND_F0", "0RECV_B0", "0B0", "0REDUCE_GRAD".
  std::vector<std::string> actions(int rank) const;

  /// Grid and numbers, for a terminal.
  std::string text() const;
  /// A self-contained page with the timeline.
  std::string html() const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace shardpipe
