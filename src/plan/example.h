#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::plan {

/// For each integer input of a graph how many values it may have, from 0 on: what follows from the tables that it, or a
/// view or conversion of it, indexes (embeddings, classes of a loss). Inputs that index nothing are not in it.
std::map<std::string, int64_t> index_limits(const graph::Graph& graph);

/// Inputs that a graph can be tried with, in its order: normally distributed numbers, integers below the input's limit
/// (2 where `limits` has none), booleans; an integer that is no tensor is `dimensions`' where its shape says so,
/// else 2. `dimensions` has all named ones. The same for the same seed.
std::vector<std::pair<std::string, at::Tensor>> random_inputs(
    const graph::Graph& graph,
    const graph::Dimensions& dimensions,
    const std::map<std::string, int64_t>& limits,
    uint64_t seed = 0);

}  // namespace shardpipe::plan
