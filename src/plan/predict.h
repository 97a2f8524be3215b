#pragma once

#include <map>
#include <utility>
#include <vector>

#include "plan/explain.h"

namespace shardpipe::plan {

/// What a step costs on a pipeline.
struct PipelineCosts {
  std::vector<double> forward_s;                     ///< of a microbatch, by stage
  std::map<std::pair<int, int>, double> transfer_s;  ///< of what goes from a stage to another
  double message_s = 0;                              ///< of a message before its first byte
  double outputs_s = 0;                              ///< of a batch, from the last forward until rank 0 has all outputs
  double together = 1;                               ///< times the work of one rank that all do at a time
};

struct StepTime {
  double seconds = 0;  ///< from one step to the next
  double bubble = 0;   ///< part of the ranks' time without compute
  schedule::Simulation simulation;
};

/// The time of a step by simulation, where it begins and ends with empty ranks. A "decode" step starts for each lane as
/// soon as its tokens are there, so that the lanes of two steps overlap: the mean of some steps after the first ones.
StepTime predict_step(const Plan& plan, const Step& step, const PipelineCosts& costs);

/// What the stages of a plan or an outline() cost alone, and the outputs' way to rank 0. Transfers between stages are
/// left to the caller.
PipelineCosts pipeline_costs(
    const Plan& plan, int threads, const Step& step, const StepCosts& costs, const Forecast& forecast);

/// A plan's outline().
Alternative predict_alternative(const Plan& outline, const Forecast& forecast);

/// Seconds of each stage's nodes.
std::vector<double> stage_seconds(const partition::CutPoints& points, const partition::Costs& costs);

}  // namespace shardpipe::plan
