#pragma once

// Inputs of a forward program, as a caller gives them.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "frontend/hf/model.h"

namespace shardpipe::hf {

/// Appends the optional inputs that are not given. Does nothing for those whose `like` is not given either.
void add_optional_inputs(
    const std::vector<OptionalInput>& optional, std::vector<std::pair<std::string, at::Tensor>>& inputs);

/// Throws Error(usage) naming the input, the limit and the actual value for ids outside of the vocabulary and for rows
/// that are longer than the model's positions. Inputs that are absent or not int64 are left to who binds them.
void check_inputs(const FolderModel& model, const std::map<std::string, at::Tensor>& inputs);

}  // namespace shardpipe::hf
