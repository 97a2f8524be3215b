#include "partition/layers.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

namespace shardpipe::partition {
namespace {

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

bool inside(const std::string& path, const std::string& module) {
  return path == module || (path.size() > module.size() && path.starts_with(module) && path[module.size()] == '.');
}

Layers find_layers(const graph::Graph& graph, size_t wanted) {
  std::map<std::string, size_t> first_node;  // of each module that computes something
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const std::string& path = graph.nodes[n].module;
    for (size_t end = path.find('.'); true; end = path.find('.', end + 1)) {
      first_node.try_emplace(path.substr(0, end), n);
      if (end == std::string::npos) {
        break;
      }
    }
  }
  using Key = std::tuple<size_t, size_t, int64_t, std::string>;        // first node, length of the parent, number, path
  std::map<std::pair<int64_t, std::string>, std::vector<Key>> groups;  // by depth and class
  for (const auto& [path, class_name] : graph.modules) {
    const size_t dot = path.rfind('.');
    const std::string last = path.substr(dot == std::string::npos ? 0 : dot + 1);
    if (!last.empty() && last.size() < 10 && last.find_first_not_of("0123456789") == std::string::npos) {
      const auto first = first_node.find(path);
      groups[{std::count(path.begin(), path.end(), '.'), class_name}].emplace_back(
          first == first_node.end() ? graph.nodes.size() : first->second, path.size() - last.size(), std::stoll(last),
          path);
    }
  }
  const auto worth = [&](const auto& group) {
    const size_t size = group.second.size();
    const bool enough = size >= std::max<size_t>(wanted, 2);
    return std::tuple(enough, enough ? -group.first.first : 0, size, -group.first.first);
  };
  const auto best =
      std::max_element(groups.begin(), groups.end(), [&](const auto& a, const auto& b) { return worth(a) < worth(b); });
  Layers layers;
  if (best != groups.end()) {
    layers.class_name = best->first.second;
    std::sort(best->second.begin(), best->second.end());
    for (const Key& member : best->second) {
      layers.paths.push_back(std::get<3>(member));
    }
  }
  return layers;
}

std::vector<std::string> nearest(const std::string& name, const std::vector<std::string>& names, size_t count) {
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& candidate : names) {
    ranked.emplace_back(edit_distance(name, candidate), candidate);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> best;
  for (size_t i = 0; i < std::min(count, ranked.size()); ++i) {
    best.push_back(ranked[i].second);
  }
  return best;
}

}  // namespace shardpipe::partition
