#pragma once

#include <map>
#include <utility>
#include <vector>

#include "plan/explain.h"
#include "schedule/action.h"

namespace shardpipe::plan {

/// What a step costs on a pipeline.
struct PipelineCosts {
  std::vector<double> forward_s;                       ///< of a microbatch, by stage
  std::map<std::pair<int, int>, double> transfer_s;  ///< of what goes from a stage to another
};

struct StepTime {
  double seconds = 0;
  double bubble = 0;  ///< part of the ranks' time without compute
};

/// The time from one step to the next. "decode": a step of generation after the first, which starts for each lane as
/// soon as its tokens are there, so that the lanes of two steps overlap; other steps begin and end with empty ranks.
StepTime predict_step(const Step& step, const LayoutOptions& layout, const PipelineCosts& costs, double message_s);

/// The model cut at `points` for `pp` ranks.
Alternative predict_alternative(
    const Plan& plan, const Forecast& forecast, int pp, const partition::CutPoints& points);

/// Seconds of each stage's nodes.
std::vector<double> stage_seconds(const partition::CutPoints& points, const partition::Costs& costs);

/// Ranks that compute at the same time.
int active_ranks(int pp, const Step& step);

}  // namespace shardpipe::plan
