#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "plan/plan.h"
#include "shardpipe/options.h"

namespace shardpipe::runtime {

/// Tensors by name, in the order in which they were given.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// How an input is given to the microbatches.
struct ChunkRule {
  std::optional<int64_t> dim;  ///< nullopt: whole to each
  int64_t rows_per_item = 1;   ///< extent in `dim` of one item of the batch
};

/// How an output's microbatches are joined: by rule, or as the plan's ScalarOutput of that name says.
struct JoinRule {
  bool scalar = false;
  MergeRule merge;
};

/// A batch cut into microbatches: made by rank 0, the same on every rank. The microbatches are one list, of which each
/// replica runs a part: first those of the first replica.
struct BatchRequest {
  std::vector<int64_t> rows;  ///< items of the batch in each microbatch
  std::map<std::string, ChunkRule> inputs;
  std::map<std::string, JoinRule> outputs;
  std::string loss;
  bool outputs_on_last = false;
  /// How much each microbatch counts in each term of the loss, where that is known before the first forward.
  std::optional<std::vector<std::vector<double>>> loss_weights = {};

  std::vector<int> by_replica = {};  ///< microbatches of each replica; 0 from the first on that has no rows

  int microbatches() const { return static_cast<int>(rows.size()); }
  /// Replicas that have rows.
  int active_replicas() const;
  /// A replica's first microbatch in the list.
  int first_of(int replica) const;
  std::vector<int64_t> rows_of(int replica) const;
};

/// Decides the rules and the number of microbatches. Throws Error(usage) naming what is wrong: an unknown input, output
/// or loss in the options, inputs that are missing, unknown, of another type or that disagree in the extent of the
/// batch. Warns when the batch is smaller than the number of microbatches asked for (which is lowered) and when a
/// scalar output is averaged by rows because the graph does not show what it averages.
BatchRequest request_batch(const plan::Plan& plan, const NamedTensors& inputs, const RunOptions& options);

/// The dimension that is the batch: the named one that comes first in the shape of an input; empty when no input begins
/// with one.
std::string batch_dimension(const graph::Graph& graph);

/// Rows of each of `chunks` pieces as torch.tensor_split cuts them.
std::vector<int64_t> split_rows(int64_t rows, int chunks);

/// By name, each where kernels give the same last bits as for any other tensor: a file's data may lie anywhere.
std::map<std::string, at::Tensor> aligned_inputs(const NamedTensors& inputs);

/// A replica's part of an input: all of its microbatches.
at::Tensor replica_part(const at::Tensor& whole, const ChunkRule& rule, const BatchRequest& request, int replica);

/// The microbatch's part of an input; `first`: the microbatch that `whole` begins with.
at::Tensor chunk_of(
    const at::Tensor& whole, const ChunkRule& rule, const BatchRequest& request, int microbatch, int first = 0);

Json to_json(const BatchRequest& request);
BatchRequest batch_request_from_json(const Json& json);

}  // namespace shardpipe::runtime
