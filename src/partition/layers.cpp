#include "partition/layers.h"

#include <algorithm>
#include <map>
#include <numeric>

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

Layers find_layers(const graph::Graph& graph) {
  struct Group {
    size_t depth = 0;
    std::map<int64_t, std::string> members;
  };
  std::map<std::pair<std::string, std::string>, Group> groups;  // (parent, class)
  for (const auto& [path, class_name] : graph.modules) {
    const size_t dot = path.rfind('.');
    const std::string last = path.substr(dot == std::string::npos ? 0 : dot + 1);
    const bool numbered =
        !last.empty() && last.size() < 10 && last.find_first_not_of("0123456789") == std::string::npos;
    if (numbered) {
      const std::string parent = dot == std::string::npos ? "" : path.substr(0, dot);
      Group& group = groups[{parent, class_name}];
      group.depth = static_cast<size_t>(std::count(path.begin(), path.end(), '.'));
      group.members[std::stoll(last)] = path;
    }
  }
  const auto best = std::max_element(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.members.size(), b.second.depth) < std::pair(b.second.members.size(), a.second.depth);
  });
  Layers layers;
  if (best != groups.end()) {
    layers.class_name = best->first.second;
    for (const auto& [index, path] : best->second.members) {
      layers.paths.push_back(path);
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
