#pragma once

#include <vector>

#include "base/json.h"
#include "plan/explain.h"

namespace shardpipe::plan {

/// How each parameter lies over the axis tp, in the order of the graph; nothing where tp is 1.
std::vector<WeightReport> weight_reports(const Plan& plan);

/// The collectives of each part's program; bytes of one microbatch.
std::vector<CollectiveReport> collective_reports(const Plan& plan, const std::vector<Step>& steps);

Json to_json(const WeightReport& weight);

/// Weights that lie alike, names that differ in numbers only taken together: rows of a table with a head.
std::vector<std::vector<std::string>> weight_rows(const std::vector<WeightReport>& weights);
/// Collectives that are alike, likewise.
std::vector<std::vector<std::string>> collective_rows(
    const std::vector<CollectiveReport>& collectives, const std::vector<StepReport>& steps);

}  // namespace shardpipe::plan
