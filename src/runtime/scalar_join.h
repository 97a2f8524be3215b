#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "plan/scalars.h"

namespace shardpipe::runtime {

/// Values of scalar outputs, hidden ones too, by output: one a microbatch, float64 [microbatches].
using ScalarValues = std::map<std::string, at::Tensor>;

/// How much each microbatch's value of a term counts in the batch's, without the coefficient: 1 for a sum, else numbers
/// that add up to 1. `values` holds the counts.
std::vector<double> term_weights(const plan::ScalarTerm& term, const ScalarValues& values, size_t microbatches);

/// Shares of the rows, which add up to 1.
std::vector<double> row_weights(const std::vector<int64_t>& rows);

/// The batch's value of a scalar output of several microbatches.
double join_scalar(const plan::ScalarOutput& scalar, const ScalarValues& values, const std::vector<int64_t>& rows);

}  // namespace shardpipe::runtime
