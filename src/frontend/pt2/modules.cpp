#include "frontend/pt2/modules.h"

#include <algorithm>

namespace shardpipe::pt2 {
namespace {

// "model.layers" of "model.layers.0" and "model.layers.1.mlp".
std::string common_path(const std::string& a, const std::string& b) {
  size_t end = 0;
  for (size_t i = 0; i <= std::min(a.size(), b.size()); ++i) {
    const bool a_ends = i == a.size() || a[i] == '.';
    const bool b_ends = i == b.size() || b[i] == '.';
    if (a_ends && b_ends) {
      end = i;
    }
    if (i == a.size() || i == b.size() || a[i] != b[i]) {
      break;
    }
  }
  return a.substr(0, end);
}

// Of "__main__.make.<locals>.Block" the class alone.
std::string class_of(std::string_view type) {
  const size_t dot = type.rfind('.');
  return std::string(type.substr(dot == std::string_view::npos ? 0 : dot + 1));
}

// "layers.0@1.mlp" is a later call of layers.0.
std::string without_calls(std::string_view path) {
  std::string result;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '@') {
      size_t end = i + 1;
      while (end < path.size() && path[end] >= '0' && path[end] <= '9') {
        ++end;
      }
      if (end > i + 1 && (end == path.size() || path[end] == '.')) {
        i = end - 1;
        continue;
      }
    }
    result += path[i];
  }
  return result;
}

}  // namespace

std::vector<ModuleCall> parse_module_stack(std::string_view text) {
  std::vector<ModuleCall> stack;
  constexpr std::string_view kNone = "_empty_nn_module_stack";
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(';', at), text.size());
    const std::string_view entry = text.substr(at, end - at);
    at = end + 1;
    const size_t first = entry.find(',');
    const size_t second = first == std::string_view::npos ? first : entry.find(',', first + 1);
    if (second != std::string_view::npos && !entry.starts_with(kNone)) {
      stack.push_back({without_calls(entry.substr(first + 1, second - first - 1)), class_of(entry.substr(second + 1))});
    }
  }
  return stack;
}

std::vector<std::string> fill_paths(const std::vector<std::optional<std::string>>& paths) {
  std::vector<std::string> filled(paths.size());
  std::string before;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (paths[i]) {
      before = filled[i] = *paths[i];
      continue;
    }
    size_t end = i;
    while (end < paths.size() && !paths[end]) {
      ++end;
    }
    const std::string path = end == paths.size() ? std::string() : common_path(before, *paths[end]);
    for (; i < end; ++i) {
      filled[i] = path;
    }
    --i;
  }
  return filled;
}

}  // namespace shardpipe::pt2
