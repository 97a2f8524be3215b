#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "runtime/scalar_join.h"

namespace shardpipe::runtime {

/// The part of a plan's graph that computes how many elements a loss's means are over, where that follows from the
/// model's inputs, from small tensors (weights of classes) and from shapes alone: then the weights of all microbatches
/// are known before the first forward, and backwards may begin before the last forward is done (1F1B).
class LossCounts {
 public:
  /// Of the means among the terms. Nothing where a count depends on what the model computes or on its states, or where
  /// a shape is not known.
  static std::optional<LossCounts> find(const plan::Plan& plan, const std::vector<plan::ScalarTerm>& terms);

  /// Inputs of the model that compute() asks for.
  std::vector<std::string> inputs() const;
  /// The counts of so many microbatches, by the output that has them; nothing when a size does not follow from these
  /// inputs, or a count is no number. `input`: a microbatch's part of an input; `load`: the tensor of a parameter or
  /// buffer.
  std::optional<ScalarValues> compute(
      int microbatches,
      const std::function<at::Tensor(int microbatch, const std::string& name)>& input,
      const std::function<at::Tensor(const graph::Value& value)>& load) const;

 private:
  graph::Graph graph_;  // outputs: the counts
};

}  // namespace shardpipe::runtime
