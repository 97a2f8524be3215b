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
};

struct StepTime {
  double seconds = 0;  ///< from one step to the next
  double bubble = 0;   ///< part of the ranks' time without compute
  schedule::Simulation simulation;
};

/// The time of a step by simulation, where it begins and ends with empty ranks. A "decode" step starts for each lane as
/// soon as its tokens are there, so that the lanes of two steps overlap: it takes as long as the busiest rank needs for
/// all lanes, or, where that is more, as one lane needs through all stages and back to the first. (The lanes' order has
/// these two cycles; any other is a mix of them, so the longer one is exact.)
StepTime predict_step(const Plan& plan, const Step& step, const PipelineCosts& costs);

/// A plan's outline().
Alternative predict_alternative(const Plan& outline, const Forecast& forecast);

/// Seconds of each stage's nodes.
std::vector<double> stage_seconds(const partition::CutPoints& points, const partition::Costs& costs);

/// Ranks that compute at the same time.
int active_ranks(int pp, const Step& step);

}  // namespace shardpipe::plan
