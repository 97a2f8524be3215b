#pragma once

#include <map>
#include <string>
#include <vector>

#include "tensor/classes.h"
#include "tensor/rewrite.h"
#include "tensor/shard.h"

namespace shardpipe::tensor {

/// Which parameters and states are divided, and how.
struct Choice {
  TensorShards shards;
  std::map<std::string, std::string> replicated;  ///< see Sharded
};

/// Takes the classes of dimensions whose division saves more time than its collectives cost, those that save most for
/// it first, none that meets another in one tensor; `pins` come before all.
Choice choose_shards(const AxisGraph& graph, const ShardOptions& options);

/// Whether a module path, or the name of a parameter in it, matches a pattern.
bool matches(const std::string& pattern, const std::string& path);

}  // namespace shardpipe::tensor
