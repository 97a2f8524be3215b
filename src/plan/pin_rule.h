#pragma once

#include <string>

#include "shardpipe/options.h"
#include "tensor/shard.h"

namespace shardpipe::plan {

/// What a user says of the modules that a pattern matches, as the planner of the axis tp takes it.
tensor::PinRule pin_rule(std::string pattern, const TensorPin& pin);

}  // namespace shardpipe::plan
