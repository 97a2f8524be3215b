#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "checkpoint/folder.h"
#include "comm/transport.h"
#include "comm/world.h"
#include "graph/executor.h"
#include "plan/plan.h"
#include "runtime/driver.h"
#include "schedule/action.h"
#include "shardpipe/options.h"

namespace shardpipe::runtime {

/// Holds this rank's stage of a plan and executes schedule actions: the only thing that runs a model.
/// One compute thread calls it.
class Engine {
 public:
  /// Loads the weights of this rank's stage, and nothing else, from the plan's folder. Sets the number of threads of
  /// the process to the plan's. Throws Error(input) when the checkpoint contradicts the plan.
  Engine(const plan::Plan& plan, comm::World& world);

  const plan::Plan& plan() const { return plan_; }
  comm::World& world() const { return world_; }
  int stage() const { return stage_; }
  /// Whether this rank computes the model's outputs.
  bool is_last_stage() const { return stage_ + 1 == plan_.layout.pp; }

  /// Makes the per-sequence states (KV caches) of `lanes.size()` lanes, each with the named dimensions given; what was
  /// in them before is gone. Memory is taken when it is first written.
  void reset_states(const std::vector<graph::Dimensions>& lanes);

  /// Executes this rank's actions in order; microbatch m uses the states of lane m. Errors carry rank and action.
  StepStats run(const std::vector<schedule::Action>& actions, StepDriver& driver);

  int64_t parameter_bytes() const { return plan_.parameter_bytes(stage_); }
  /// Bytes of the checkpoint's mapping that this process has touched.
  int64_t resident_weight_bytes() const { return static_cast<int64_t>(checkpoint_->resident_bytes()); }

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
  void execute(const schedule::Action& action, StepDriver& driver, StepStats& stats);
  void forward(int microbatch, StepDriver& driver);
  int64_t send_values(int microbatch);
  int64_t send_tokens(int microbatch, StepDriver& driver);
  void receive_values(int microbatch, StepDriver& driver);
  void receive_tokens(int microbatch, StepDriver& driver);
  void post_values(int microbatch, StepDriver& driver);
  void post_tokens(int microbatch, StepDriver& driver);
  comm::ActionPlace place(const schedule::Action& action) const;
  int tag(int microbatch, size_t edge) const;
  Lane& lane(int microbatch) { return lanes_[static_cast<size_t>(microbatch)]; }

  plan::Plan plan_;
  comm::World& world_;
  int stage_;
  comm::Transport transport_;  // over the pp axis: its ranks are stages
  std::shared_ptr<const checkpoint::Checkpoint> checkpoint_;
  graph::Executor executor_;
  std::vector<std::pair<std::string, graph::ValueId>> inputs_;   // of the model, that this stage uses
  std::vector<std::pair<std::string, graph::ValueId>> outputs_;  // of the model, that this stage computes
  std::vector<size_t> incoming_;  // edges into this stage: indices into plan_.stages.edges
  std::vector<size_t> outgoing_;  // edges out of it
  std::vector<graph::ValueId> states_;
  std::vector<Lane> lanes_;
};

}  // namespace shardpipe::runtime
