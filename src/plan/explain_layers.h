#pragma once

#include <vector>

#include "plan/explain.h"

namespace shardpipe::plan {

/// The plan's graph, layer by layer, in the order in which it runs; `costs`: of each step.
std::vector<LayerReport> layer_reports(
    const Plan& plan, const std::vector<Step>& steps, const std::vector<StepCosts>& costs);

}  // namespace shardpipe::plan
