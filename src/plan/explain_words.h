#pragma once

// The sentences of an explanation, for text and page.
#include <string>
#include <vector>

#include "plan/explain.h"

namespace shardpipe::plan {

/// "model.layers.0 - model.layers.6"
std::string layers_words(const StageReport& stage);
/// Model, layout, kernels, where the costs are from, what is missing.
std::vector<std::string> head_words(const Explanation& explanation);
/// A step's sizes, time, bubble and balance.
std::string step_words(const Explanation& explanation, size_t step);
/// Memory of the ranks, what several stages hold or compute, operators without a row.
std::vector<std::string> tail_words(const Explanation& explanation);
/// What the table of fewer ranks assumes.
std::string alternatives_words(const Explanation& explanation);

}  // namespace shardpipe::plan
