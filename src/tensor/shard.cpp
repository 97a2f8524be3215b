#include "tensor/shard.h"

#include <algorithm>

#include "graph/text.h"
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
  for (const auto& [id, shard] : choice.shards) {
    sharded.shards.emplace(graph.values[static_cast<size_t>(id)].name, shard);
  }
  sharded.replicated = std::move(choice.replicated);
  for (int part = 0; part < options.parts; ++part) {
    sharded.graphs.push_back(
        rewrite(axes, choice.shards, choice.made_whole, part, options.gradients, part == 0 ? &sharded : nullptr));
  }
  const std::string first = graph::print(sharded.graphs[0]);
  if (std::all_of(sharded.graphs.begin() + 1, sharded.graphs.end(), [&](const graph::Graph& graph_of_part) {
        return graph::print(graph_of_part) == first;
      })) {
    sharded.graphs.resize(1);
  }
  return sharded;
}

}  // namespace shardpipe::tensor
