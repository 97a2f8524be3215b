#pragma once

#include <map>
#include <set>
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
  std::set<graph::ValueId> made_whole;            ///< results to make whole where they are computed
};

/// Takes the classes of dimensions whose division saves more time than its collectives cost, those that save most for
/// it first, none that meets another in one tensor; `pins` come before all.
Choice choose_shards(const AxisGraph& graph, const ShardOptions& options);

}  // namespace shardpipe::tensor
