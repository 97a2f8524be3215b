#pragma once

#include <map>
#include <set>
#include <string>

#include "tensor/classes.h"
#include "tensor/shard.h"

namespace shardpipe::tensor {

/// What a user's plan comes to.
struct PinnedTensors {
  struct Divided {
    int dim = 0;
    int64_t unit = 1;  ///< PinRule's
  };
  std::map<graph::ValueId, Divided> dims;  ///< by parameter
  std::set<graph::ValueId> whole;          ///< parameters to keep whole
  std::set<graph::ValueId> made_whole;     ///< results to make whole where they are computed
};

/// Whether a module path, or the name of a parameter in it, matches a pattern; `*` stands for what is between two
/// points.
bool matches(const std::string& pattern, const std::string& path);

/// The last rule that matches a parameter counts. Throws Error(usage) for a pattern that matches no parameter, and for
/// a dimension that has fewer elements than there are parts.
PinnedTensors find_pins(const AxisGraph& graph, const ShardOptions& options);

}  // namespace shardpipe::tensor
