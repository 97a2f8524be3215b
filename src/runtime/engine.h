#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/folder.h"
#include "comm/transport.h"
#include "comm/world.h"
#include "graph/executor.h"
#include "plan/plan.h"
#include "runtime/batch_stage.h"
#include "runtime/driver.h"
#include "schedule/action.h"
#include "shardpipe/options.h"

namespace shardpipe::runtime {

/// A rank's place in the pipeline.
struct Seat {
  int rank = 0;              ///< in the world
  comm::Transport pipeline;  ///< along the pp axis: its ranks are stages
  comm::Monitor* monitor = nullptr;
};
Seat seat_of(comm::World& world);

/// A weight that no file holds, by name.
using TensorSource = std::function<at::Tensor(const std::string& name)>;

/// Holds this rank's stage of a plan and executes schedule actions: the only thing that runs a model.
/// One compute thread calls it.
class Engine {
 public:
  /// Loads the weights of this rank's stage, and nothing else, from the plan's checkpoints, or from `tensors` where the
  /// plan names no checkpoint for them. Sets the number of threads of the process to the plan's. Throws Error(input)
  /// when a checkpoint contradicts the plan.
  Engine(const plan::Plan& plan, Seat seat, TensorSource tensors = {});

  const plan::Plan& plan() const { return plan_; }
  const comm::Transport& pipeline() const { return seat_.pipeline; }
  comm::Monitor& monitor() const { return *seat_.monitor; }
  int stage() const { return seat_.pipeline.rank(); }
  /// Whether this rank computes the model's outputs.
  bool is_last_stage() const { return stage() + 1 == plan_.layout.pp; }

  /// Makes the per-sequence states (KV caches) of `lanes.size()` lanes, each with the named dimensions given; what was
  /// in them before is gone. Memory is taken when it is first written.
  void reset_states(const std::vector<graph::Dimensions>& lanes);

  /// Executes this rank's actions in order; microbatch m uses the states of lane m. Errors carry rank and action.
  StepStats run(const std::vector<schedule::Action>& actions, TokenDriver& driver);

  /// Begins a batch of so many microbatches, with backwards or without; the one before is forgotten, but for what it
  /// left in the shared states.
  void begin_batch(int microbatches, bool gradients);
  StepStats run(const std::vector<schedule::Action>& actions, BatchDriver& driver);
  /// Of this stage's parameters, over the backwards of the batch.
  std::vector<ParameterGradient> parameter_gradients() const;

  int64_t parameter_bytes() const { return plan_.parameter_bytes(stage()); }
  /// Bytes of the checkpoints' mappings that this process has touched.
  int64_t resident_weight_bytes() const;

 private:
  /// What arrives over one edge; posted as soon as its shape is known, so that the sender need not wait.
  struct Arrival {
    at::Tensor buffer;
    comm::MessageHandle message;
    bool posted = false;
  };
  struct Lane {
    std::vector<at::Tensor> states;   // as states_
    std::vector<Arrival> values;      // as incoming_
    std::vector<at::Tensor> results;  // as outgoing_values_, between F and SEND_F
    Arrival tokens;
  };

  void load_weights();
  /// What runs in a step of these dimensions: all of the stage, or what is left of it where some are 0.
  graph::Executor& executor_for(const graph::Dimensions& dimensions);
  at::Tensor load(const graph::Value& value) const;
  template <typename F>
  void run_action(const schedule::Action& action, F execute);
  void execute(const schedule::Action& action, TokenDriver& driver, StepStats& stats);
  void execute(const schedule::Action& action, BatchDriver& driver, StepStats& stats);
  void forward(int microbatch, TokenDriver& driver);
  int64_t send_values(int microbatch);
  int64_t send_tokens(int microbatch, TokenDriver& driver);
  void receive_values(int microbatch, TokenDriver& driver);
  void receive_tokens(int microbatch, TokenDriver& driver);
  void post_values(int microbatch, TokenDriver& driver);
  void post_tokens(int microbatch, TokenDriver& driver);
  comm::ActionPlace place(const schedule::Action& action) const;
  int tag(int microbatch, size_t edge) const;
  Lane& lane(int microbatch) { return lanes_[static_cast<size_t>(microbatch)]; }

  plan::Plan plan_;
  TensorSource source_;
  Seat seat_;
  std::vector<std::shared_ptr<const checkpoint::Checkpoint>> checkpoints_;
  std::map<graph::ValueId, at::Tensor> tensors_;  // parameters and buffers of the stage
  std::map<graph::ValueId, at::Tensor> shared_;   // its shared states
  graph::Executor executor_;
  std::map<std::set<std::string>, graph::Executor> partial_;     // by the dimensions that are 0
  std::vector<std::pair<std::string, graph::ValueId>> inputs_;   // of the model, that this stage uses
  std::vector<std::pair<std::string, graph::ValueId>> outputs_;  // of the model, that this stage computes
  std::vector<size_t> incoming_;        // edges into this stage: indices into plan_.stages.edges
  std::vector<size_t> outgoing_;        // edges out of it
  std::vector<graph::ValueId> states_;  // per lane
  std::vector<Lane> lanes_;
  std::optional<BatchStage> batch_;
};

}  // namespace shardpipe::runtime
