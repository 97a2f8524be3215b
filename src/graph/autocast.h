#pragma once

#include <optional>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::graph {

/// Switches LibTorch's autocast state (of the CPU, of this thread) from node to node and restores the caller's at the
/// end. Casts of parameters that autocast keeps are dropped when a region ends, as leaving Python's context does.
class AutocastScope {
 public:
  AutocastScope() = default;
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

  /// nullopt: the caller's state.
  void enter(const std::optional<Autocast>& wanted);

 private:
  std::optional<Autocast> now_;
  std::vector<Autocast> callers_;  // by device, once they were left
};

}  // namespace shardpipe::graph
