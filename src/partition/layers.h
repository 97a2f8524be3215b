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

/// The largest group of modules that share parent and class and are numbered; the outermost one when several groups
/// have the same size. Empty when the model has none.
Layers find_layers(const graph::Graph& graph);

/// Whether `path` is `module` or lies inside it.
bool inside(const std::string& path, const std::string& module);

/// Up to `count` names of `names` that are nearest to `name` by edit distance, best first.
std::vector<std::string> nearest(const std::string& name, const std::vector<std::string>& names, size_t count);

}  // namespace shardpipe::partition
