#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "shardpipe/options.h"

namespace shardpipe::runtime {

/// An output of a batch from its microbatches' values; `rows`: items of the batch in each, the weights of a mean. Sums
/// are in microbatch order. Throws Error(usage) when the values have no dimension that the rule names.
at::Tensor join_output(
    const std::string& name,
    const MergeRule& rule,
    const std::vector<at::Tensor>& values,
    const std::vector<int64_t>& rows);

}  // namespace shardpipe::runtime
