#include "partition/policies.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <set>

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

// Parameters and buffers that a node reads.
std::set<graph::ValueId> tensors_of(const graph::Graph& graph, const graph::Node& node) {
  std::set<graph::ValueId> tensors;
  for (const graph::ValueId id : graph::Graph::operands(node)) {
    const graph::ValueKind kind = graph.values[static_cast<size_t>(id)].kind;
    if (kind == graph::ValueKind::parameter || kind == graph::ValueKind::buffer) {
      tensors.insert(id);
    }
  }
  return tensors;
}

int64_t tensor_bytes(const graph::Graph& graph, const std::set<graph::ValueId>& tensors) {
  int64_t bytes = 0;
  for (const graph::ValueId id : tensors) {
    bytes += graph::size_bytes(graph.values[static_cast<size_t>(id)], {});
  }
  return bytes;
}

// What `even` counts: where each piece of the model ends.
std::vector<size_t> ends_of_pieces(const graph::Graph& graph, int stages) {
  std::vector<size_t> ends;
  for (const std::string& path : find_layers(graph, static_cast<size_t>(stages)).paths) {
    if (const std::optional<size_t> end = end_of(graph, path)) {
      ends.push_back(*end);
    }
  }
  if (ends.size() > 1) {
    return ends;
  }
  ends.clear();
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const std::string& path = graph.nodes[n].module;
    const std::string top = path.substr(0, path.find('.'));
    if (!top.empty() && end_of(graph, top) == n + 1) {
      ends.push_back(n + 1);
    }
  }
  if (static_cast<int>(ends.size()) >= stages) {
    return ends;
  }
  std::vector<size_t> nodes;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    if (!tensors_of(graph, graph.nodes[n]).empty()) {
      nodes.push_back(n + 1);
    }
  }
  return nodes.size() > ends.size() ? nodes : ends;
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
  const std::vector<size_t> ends = ends_of_pieces(graph, stages);
  const std::vector<int64_t> sizes = even_sizes(static_cast<int64_t>(ends.size()), stages);
  int64_t piece = 0;
  for (size_t stage = 0; stage + 1 < sizes.size(); ++stage) {
    piece += sizes[stage];
    points.push_back(ends[static_cast<size_t>(piece) - 1]);
    if (points.back() <= (stage == 0 ? 0 : points[stage - 1]) || points.back() >= graph.nodes.size()) {
      throw Error(
          ErrorCode::usage,
          fmt::format("--split even leaves stage {} without work: the layers do not run one after another", stage),
          "use --split balanced, or name the cuts with --cuts");
    }
  }
  return points;
}

CutPoints layer_bounds(const graph::Graph& graph) {
  std::set<size_t> bounds;
  for (const size_t end : ends_of_pieces(graph, 2)) {
    bounds.insert(end);
  }
  for (const std::string& path : find_layers(graph).paths) {
    bounds.insert(begin_of(graph, path).value_or(0));
  }
  bounds.erase(0);
  bounds.erase(graph.nodes.size());
  return {bounds.begin(), bounds.end()};
}

CutPoints cut_threshold(const graph::Graph& graph, int64_t bytes, int most) {
  CutPoints points;
  std::set<graph::ValueId> held;  // by the stage so far
  int64_t held_bytes = 0;
  const auto full = [&] { return most > 0 && static_cast<int>(points.size()) + 1 >= most; };
  for (size_t n = 0; n < graph.nodes.size() && !full(); ++n) {
    std::set<graph::ValueId> used = tensors_of(graph, graph.nodes[n]);
    int64_t added = 0;
    for (const graph::ValueId id : used) {
      added += held.count(id) > 0 ? 0 : graph::size_bytes(graph.values[static_cast<size_t>(id)], {});
    }
    if (added == 0 || held_bytes + added <= bytes) {
      held_bytes += added;
      held.merge(used);
    } else if (held_bytes == 0) {
      held.clear();
      if (n + 1 < graph.nodes.size()) {
        points.push_back(n + 1);
      }
    } else {
      points.push_back(n);
      held_bytes = tensor_bytes(graph, used);
      held = std::move(used);
    }
  }
  return points;
}

CutPoints cut_equal_size(const graph::Graph& graph, int stages) {
  std::set<graph::ValueId> all;
  for (const graph::Node& node : graph.nodes) {
    all.merge(tensors_of(graph, node));
  }
  CutPoints points = cut_threshold(graph, tensor_bytes(graph, all) / stages, stages);
  if (static_cast<int>(points.size()) + 1 < stages) {
    throw Error(
        ErrorCode::usage,
        fmt::format(
            "--split equal_size gives {} stages, --pp is {}: the parts are too large", points.size() + 1, stages),
        fmt::format("use --pp {} or --split balanced", points.size() + 1));
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
