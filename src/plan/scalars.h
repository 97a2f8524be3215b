#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "graph/graph.h"

namespace shardpipe::plan {

/// One addend of a scalar output: coefficient x the result of a reduction over a microbatch's elements.
struct ScalarTerm {
  enum class Kind {
    mean,  ///< the whole batch's is the mean of the microbatches', weighted by their counts
    sum,   ///< the whole batch's is the sum of the microbatches'
    same,  ///< does not depend on the inputs: every microbatch has the whole batch's
  };
  Kind kind = Kind::mean;
  std::string output;      ///< hidden output of the graph: the reduction's result
  std::string count;       ///< hidden output, for a mean: number of elements averaged, or the sum of their weights
  double coefficient = 1;  ///< in the scalar output
  bool operator==(const ScalarTerm&) const = default;
};

/// A floating-point output of one element, as a loss is: a sum of reductions where the graph shows that it is one.
struct ScalarOutput {
  std::string name;
  std::vector<ScalarTerm> terms;  ///< empty: not recognised
  bool operator==(const ScalarOutput&) const = default;
};

/// Finds out of which reductions (cross entropy with ignored and weighted classes, negative log likelihood, squared and
/// other element-wise losses, mean, sum) each scalar output is made, through views, conversions, constant factors and
/// sums. Adds the results and counts that joining microbatches needs to the graph as hidden outputs, with the nodes
/// that count: what the graph computes otherwise stays as it is.
std::vector<ScalarOutput> describe_scalars(graph::Graph& graph);

/// Whether an output was added by describe_scalars and is not the model's.
bool is_hidden_output(const std::string& name);

Json to_json(const ScalarOutput& scalar);
ScalarOutput scalar_from_json(const Json& json);

}  // namespace shardpipe::plan
