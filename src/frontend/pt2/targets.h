#pragma once

#include <string>
#include <vector>

#include "frontend/pt2/document.h"
#include "graph/graph.h"

namespace shardpipe::pt2 {

/// What the "target" of an exported node means.
struct Target {
  enum class Kind {
    call,          ///< `name` is LibTorch's operator: "aten::add.Tensor"
    scalar,        ///< `scalar` on sizes and other numbers
    assertion,     ///< `name` checks something and computes nothing
    region,        ///< `name` runs its sub-graph once: wrap_with_set_grad_enabled, wrap_with_autocast, …
    cond,          ///< one of two sub-graphs
    higher_order,  ///< `name` is another operator on sub-graphs
    unknown,       ///< LibTorch has no such operator
  };
  Kind kind = Kind::unknown;
  std::string name;
  graph::ScalarOperator scalar = graph::ScalarOperator::none;
};

Target parse_target(const std::string& text);

/// Operators of an exported graph and its sub-graphs that LibTorch does not have: "torch.ops.x.y (node z of "path")",
/// in order, each operator once.
std::vector<std::string> unknown_operators(const Document& exported);

}  // namespace shardpipe::pt2
