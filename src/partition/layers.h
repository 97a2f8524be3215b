#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::partition {

/// The repeated module of a model: paths in order, such as model.layers.0 … model.layers.29.
struct Layers {
  std::string class_name;
  std::vector<std::string> paths;
};

/// The modules of one class at one depth that are numbered ("layer2.0"), whatever their parents, in the order in which
/// they run. Of several such groups the outermost with at least `wanted` members, else the largest; of two at one depth
/// the larger. Empty when the model has none.
Layers find_layers(const graph::Graph& graph, size_t wanted = 2);

/// Whether `path` is `module` or lies inside it.
bool inside(const std::string& path, const std::string& module);

/// Up to `count` names of `names` that are nearest to `name` by edit distance, best first.
std::vector<std::string> nearest(const std::string& name, const std::vector<std::string>& names, size_t count);

}  // namespace shardpipe::partition
