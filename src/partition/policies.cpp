#include "partition/policies.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "partition/layers.h"

namespace shardpipe::partition {
namespace {

// Index of the first node after those of `module`; nullopt when the module computes nothing.
std::optional<size_t> end_of(const graph::Graph& graph, const std::string& module) {
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    if (inside(graph.nodes[n].module, module)) {
      return n + 1;
    }
  }
  return std::nullopt;
}

std::optional<size_t> begin_of(const graph::Graph& graph, const std::string& module) {
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    if (inside(graph.nodes[n].module, module)) {
      return n;
    }
  }
  return std::nullopt;
}

std::vector<std::string> module_names(const graph::Graph& graph) {
  std::vector<std::string> names;
  for (const auto& [path, class_name] : graph.modules) {
    names.push_back(path);
  }
  return names;
}

}  // namespace

std::vector<int64_t> even_sizes(int64_t layers, int stages) {
  if (layers < stages) {
    throw Error(
        ErrorCode::usage,
        fmt::format("{} stages (--pp) for a model of {} layers: at most one stage a layer", stages, layers),
        fmt::format("use --pp {} or less", std::max<int64_t>(layers, 1)));
  }
  std::vector<int64_t> sizes(static_cast<size_t>(stages), layers / stages);
  for (int64_t i = 0; i < layers % stages; ++i) {
    ++sizes[sizes.size() - 1 - static_cast<size_t>(i)];
  }
  return sizes;
}

CutPoints cut_even(const graph::Graph& graph, int stages) {
  CutPoints points;
  if (stages == 1) {
    return points;
  }
  const Layers layers = find_layers(graph);
  if (layers.paths.empty()) {
    throw Error(
        ErrorCode::usage, "--split even needs a module class that repeats, and the model has none",
        "name the cuts with --cuts");
  }
  const std::vector<int64_t> sizes = even_sizes(static_cast<int64_t>(layers.paths.size()), stages);
  int64_t layer = 0;
  for (size_t stage = 0; stage + 1 < sizes.size(); ++stage) {
    layer += sizes[stage];
    points.push_back(end_of(graph, layers.paths[static_cast<size_t>(layer) - 1]).value());
  }
  return points;
}

CutPoints cut_at(const graph::Graph& graph, const std::vector<std::string>& cuts, int stages) {
  if (static_cast<int>(cuts.size()) != stages - 1) {
    throw Error(
        ErrorCode::usage,
        fmt::format("--cuts has {} names for {} stages: {} are needed", cuts.size(), stages, stages - 1),
        fmt::format("use --pp {}", cuts.size() + 1));
  }
  CutPoints points;
  for (const std::string& cut : cuts) {
    const bool before = cut.starts_with('<');
    const std::string module = before ? cut.substr(1) : cut;
    const std::optional<size_t> point = before ? begin_of(graph, module) : end_of(graph, module);
    if (!point || graph.modules.count(module) == 0) {
      throw Error(
          ErrorCode::usage, fmt::format("--cuts names \"{}\", which is no module of the model", module),
          fmt::format("the nearest are {}", fmt::join(nearest(module, module_names(graph), 3), ", ")));
    }
    const size_t previous = points.empty() ? 0 : points.back();
    if (*point <= previous || *point >= graph.nodes.size()) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "the cut {} \"{}\" leaves stage {} without work", before ? "before" : "after", module,
              *point >= graph.nodes.size() ? points.size() + 1 : points.size()),
          "give the cuts in the order of the model, none after its end");
    }
    points.push_back(*point);
  }
  return points;
}

}  // namespace shardpipe::partition
