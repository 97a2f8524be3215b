#include "tensor/shard.h"

#include <algorithm>

#include "tensor/classes.h"
#include "tensor/collectives.h"
#include "tensor/planner.h"
#include "tensor/rewrite.h"

namespace shardpipe::tensor {

Sharded shard(const graph::Graph& graph, const ShardOptions& options) {
  register_collectives();
  Sharded sharded;
  const AxisGraph axes(graph);
  Choice choice = choose_shards(axes, options);
  bool even = true;
  for (const auto& [id, shard] : choice.shards) {
    sharded.shards.emplace(graph.values[static_cast<size_t>(id)].name, shard);
    even = even && shard.units.front() == shard.units.back();
  }
  sharded.replicated = std::move(choice.replicated);
  for (int part = 0; part < options.parts; ++part) {
    sharded.graphs.push_back(
        rewrite(axes, choice.shards, part, options.gradients, part == 0 ? &sharded.collectives : nullptr));
  }
  return sharded;
}

}  // namespace shardpipe::tensor
