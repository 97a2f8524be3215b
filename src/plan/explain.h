#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "partition/balance.h"
#include "plan/plan.h"
#include "schedule/simulate.h"

namespace shardpipe::plan {

/// One kind of step of a program: "prefill" and "decode" of generation, "forward" of the others.
struct Step {
  std::string name;
  int microbatches = 1;                      ///< lanes, in generation
  int64_t count = 1;                         ///< how often a request takes it
  std::map<std::string, at::Tensor> inputs;  ///< an example of a microbatch's, where there is one
  graph::Dimensions sizes;                   ///< of every named dimension, of one microbatch
  std::optional<double> choice_s;            ///< of choosing a lane's tokens, which all ranks are told
  bool joins_outputs = false;                ///< what the microbatches' outputs become is wanted on rank 0
};

/// What a step costs on ranks that share this host.
struct StepCosts {
  partition::Costs nodes;  ///< seconds on a rank while the others do nothing
  double together = 1;     ///< times the work of such a rank that all ranks do when they all compute
};

/// Where a layer is and what it costs. A piece of a model that is in no layer has the names of its modules; a layer
/// that a cut divides is there once a stage.
struct LayerReport {
  std::string name;
  int stage = 0;
  int64_t parameters = 0;  ///< elements; a tied one in each layer that uses it
  int64_t parameter_bytes = 0;
  std::vector<int64_t> flops;     ///< of one microbatch; by step, as are all lists of one entry a step
  std::vector<double> forward_s;  ///< of one microbatch
};

struct StageReport {
  int stage = 0;
  int rank = 0;
  int layers = 0;           ///< that begin in it
  std::string first_layer;  ///< of those with an operator in it; empty when there is none
  std::string last_layer;
  int64_t operators = 0;
  int64_t repeated_operators = 0;  ///< of them cheap functions of the inputs that another stage computes too
  int64_t parameters = 0;          ///< elements; a tied one once
  int64_t parameter_bytes = 0;
  int64_t weight_bytes = 0;               ///< parameters, buffers and shared states
  std::vector<int64_t> flops;             ///< of a microbatch's forward, a multiply-add counted as two
  std::vector<int64_t> activation_bytes;  ///< most that a microbatch's forward without gradients has at one time: what
                                          ///< the stage receives and the operators' results until their last use
  std::vector<int64_t> cache_bytes;       ///< states of one lane
  std::vector<double> forward_s;          ///< of a microbatch
};

/// How a parameter lies over the axis tp.
struct WeightReport {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;    ///< of the whole
  int dim = -1;                  ///< that is divided; -1: whole on each part
  std::vector<int64_t> extents;  ///< by part
  std::vector<int64_t> blocks;   ///< tensor::Shard's
  std::vector<int64_t> bytes;    ///< by part
  std::string reason;            ///< why it is whole, where that needs one
};

/// A collective of a part's program over the axis tp.
struct CollectiveReport {
  std::string op;
  std::string module;
  bool backward = false;
  std::string dtype;           ///< of the whole, or of the sum; empty when not known
  std::string shape;           ///< "[tokens, 576]"; empty when not known
  std::vector<int64_t> bytes;  ///< of one microbatch, by step
};

/// What a rank holds: its stages together.
struct RankReport {
  int rank = 0;  ///< in the world
  mesh::Coordinates at;
  std::vector<int> stages;
  int64_t parameters = 0;  ///< a tied one once
  int64_t parameter_bytes = 0;
  int64_t weight_bytes = 0;
  int64_t peak_bytes = 0;  ///< weights, caches of all lanes, activations of one microbatch: the most of all steps
};

struct EdgeReport {
  int from_stage = 0;
  int to_stage = 0;
  std::string value;                        ///< "edge.57", the name in errors
  std::string module;                       ///< that computes it
  std::string dtype;                        ///< empty when not known before the run
  std::string shape;                        ///< "[tokens, 576]"; empty when not known
  std::vector<std::vector<int64_t>> sizes;  ///< the shape's extents
  std::vector<int64_t> bytes;               ///< of one microbatch
  std::vector<double> transfer_s;
};

/// A tensor that several stages hold.
struct SharedReport {
  std::string name;
  int64_t bytes = 0;
  std::vector<int> stages;
};

/// Operators without a row in the operator table: their cost follows from their shapes.
struct OperatorReport {
  std::string name;
  int64_t count = 0;
};

struct StepReport {
  std::string name;
  graph::Dimensions sizes;  ///< of one microbatch
  int microbatches = 1;
  int64_t count = 1;
  int bottleneck = 0;               ///< the slowest stage
  double balance = 1;               ///< mean of the stages' forward_s / the largest
  double step_s = 0;                ///< from one to the next: predict_step()
  double together = 1;              ///< StepCosts
  double bubble = 0;                ///< part of the ranks' time in a step without compute
  schedule::Simulation simulation;  ///< of one step that begins and ends with empty ranks
};

/// The same model on another number of ranks of this host, cut by the same policy.
struct Alternative {
  int pp = 1;
  int threads = 1;
  std::vector<int> microbatches;
  std::vector<double> step_s;
  double request_s = 0;  ///< all steps as often as they are taken
  bool operator==(const Alternative&) const = default;
};

/// What is known of a plan before it runs. Times are predictions.
struct Explanation {
  std::string model;
  std::string family;
  std::string program;  ///< "generation" or "forward"
  std::string dtype;
  LayoutOptions layout;
  std::string split;  ///< the policy, or "cuts"
  int cores = 1;
  int threads = 1;
  std::string device;
  std::string kernels;
  std::optional<kernels::KernelChoice> choice;  ///< of kernels "auto"
  bool profile = false;                         ///< costs are measured, not the model's
  partition::Rates rates;                       ///< of one rank of the plan, alone
  std::string missing_weights;                  ///< what was looked for; empty when the weights are there
  std::string layer_class;
  int64_t parameters = 0;  ///< of the model, a tied one once
  int64_t parameter_bytes = 0;
  std::vector<StepReport> steps;
  std::vector<StageReport> stages;
  std::vector<RankReport> ranks;
  std::vector<EdgeReport> edges;
  std::vector<LayerReport> layers;
  std::vector<WeightReport> weights;          ///< with tp above 1
  std::vector<CollectiveReport> collectives;  ///< likewise
  std::vector<SharedReport> shared;
  std::vector<OperatorReport> operators;
  double request_s = 0;
  std::vector<Alternative> alternatives;  ///< fewer ranks than the plan's, ascending
  std::string remark;                     ///< when one of them is faster; else empty
};

/// What explain() asks for.
struct Forecast {
  std::string model;
  std::string program;
  bool profile = false;
  int cores = 1;
  std::string missing_weights;
  /// The steps of a plan, or outline().
  std::function<std::vector<Step>(const Plan& plan)> steps;
  /// What a step costs on so many ranks of `threads` threads.
  std::function<StepCosts(const Step& step, int pp, int threads)> costs;
  std::function<partition::Rates(int threads)> rates;
  std::function<int(int pp)> threads;
  /// The outline() for `pp` ranks; nullopt where there is none.
  std::function<std::optional<Plan>(int pp)> outline;
};

/// Stages and layers cost what they do on a rank that is alone; in a step the ranks share the host (schedule/host.h).
Explanation explain(const Plan& plan, const Forecast& forecast);

/// One object; names as in the structs.
Json to_json(const Explanation& explanation);
/// Tables of at most 100 columns.
std::string to_text(const Explanation& explanation);
/// A page: diagram, costs of the layers, tables, timelines.
std::string to_html(const Explanation& explanation);

}  // namespace shardpipe::plan
