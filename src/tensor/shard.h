#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "tensor/placement.h"

namespace shardpipe::tensor {

/// How a user wants a weight to lie.
enum class Pin { colwise, rowwise, replicate, vocab };

/// What a user's plan says of the modules that a pattern matches.
struct PinRule {
  std::string pattern;  ///< "model.layers.*.mlp.down_proj"; `*` stands for anything between two points
  Pin pin = Pin::replicate;
  bool gather_output = false;     ///< of colwise: the result is made whole
  bool input_is_parallel = true;  ///< of rowwise: false: the input is whole, and its piece is taken
  int64_t unit = 1;               ///< elements that stay together where the graph does not say
  bool wish = false;  ///< of the model, not its user's: passed over where nothing matches, or there are too few units
};

struct ShardOptions {
  int parts = 1;           ///< over which the axis "tp" divides tensors
  bool gradients = false;  ///< backwards will run: where whole tensors are used piecewise, gradients are summed
  std::vector<PinRule> pins;
};

/// A collective that a part's graph calls.
struct Collective {
  std::string op;      ///< "all_reduce", "all_gather", …
  std::string module;  ///< where
  graph::ValueId value = graph::kNoValue;
  bool backward = false;
};

/// What each part of the axis runs.
struct Sharded {
  /// By part, or one that is the same for all. Node and value ids, and the order of nodes, are the same in all; those
  /// of the whole graph survive. Shapes of values are a part's own.
  std::vector<graph::Graph> graphs;
  /// Parameters, buffers and shared states of which a part holds a piece, by name.
  std::map<std::string, Shard> shards;
  /// Why a parameter of two or more dimensions is whole on each part, by name.
  std::map<std::string, std::string> replicated;
  std::vector<Collective> collectives;
  /// Values of the parts' graphs that are whole on each part, and the values of the whole graph that they are.
  std::map<graph::ValueId, graph::ValueId> whole_values;
};

/// Divides a traced graph (before kernels are chosen) over the parts of an axis. Throws Error(usage) for pins that
/// match nothing or cannot be.
Sharded shard(const graph::Graph& graph, const ShardOptions& options);

}  // namespace shardpipe::tensor
