#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <vector>

#include "comm/transport.h"
#include "comm/world.h"
#include "plan/plan.h"
#include "runtime/batch_stage.h"
#include "runtime/driver.h"
#include "runtime/token_stage.h"
#include "runtime/weights.h"
#include "schedule/action.h"
#include "shardpipe/options.h"
#include "tensor/collectives.h"

namespace shardpipe::runtime {

/// A rank's place in the mesh.
struct Seat {
  int rank = 0;              ///< in the world
  comm::Transport pipeline;  ///< along the pp axis
  comm::Monitor* monitor = nullptr;
  comm::Transport world = {};                  ///< all ranks
  std::shared_ptr<tensor::AxisGroup> tp = {};  ///< null: tp is 1
  at::Device device = at::kCPU;                ///< of the stages' tensors
};
Seat seat_of(comm::World& world);

/// Holds this rank's stages of a plan and executes schedule actions: the only thing that runs a model.
/// One compute thread calls it.
class Engine {
 public:
  /// Loads this rank's part of its stages' weights, and nothing else, from the plan's checkpoints, or from `tensors`
  /// where the plan names no checkpoint for them, onto the seat's device. Sets the number of threads of the process to
  /// the plan's. Throws Error(input) when a checkpoint contradicts the plan.
  Engine(const plan::Plan& plan, Seat seat, TensorSource tensors = {});

  /// With this rank's part of the axis tp selected.
  const plan::Plan& plan() const { return plan_; }
  const comm::Transport& pipeline() const { return seat_.pipeline; }
  comm::Monitor& monitor() const { return *seat_.monitor; }
  at::Device device() const { return seat_.device; }
  const comm::Transport& world() const { return seat_.world; }
  /// This rank's numbers along the axes.
  const mesh::Coordinates& at() const { return at_; }
  /// The rank of the world at these numbers.
  int rank_at(int pp, int dp, int tp) const { return plan_.mesh().rank({pp, dp, tp}); }
  /// Whether this is rank 0 of the world.
  bool is_first() const { return seat_.rank == 0; }
  /// This rank's number along the pipeline.
  int rank() const { return seat_.pipeline.rank(); }
  /// Whether this rank computes the model's outputs.
  bool has_last_stage() const { return plan_.rank_of_stage(plan_.num_stages() - 1) == rank(); }

  /// Makes the per-sequence states (KV caches) of `lanes.size()` lanes, each with the named dimensions given; what was
  /// in them before is gone. Memory is taken when it is first written.
  void reset_states(const std::vector<graph::Dimensions>& lanes);

  /// Executes this rank's actions in order; microbatch m uses the states of lane m. Errors carry rank and action.
  StepStats run(const std::vector<schedule::Action>& actions, TokenDriver& driver);

  /// Begins a batch of so many microbatches, with backwards or without; the one before is forgotten, but for what it
  /// left in the shared states.
  void begin_batch(int microbatches, bool gradients);
  StepStats run(const std::vector<schedule::Action>& actions, BatchDriver& driver);
  /// Of the parameters of a stage of this rank, over the backwards of the batch.
  std::vector<ParameterGradient> parameter_gradients(int stage) const;

  /// The shared states that a rank along the pipeline holds, in an order that every rank knows.
  std::vector<graph::ValueId> state_ids(int of_rank) const;
  /// One of this rank's own.
  const at::Tensor& state(graph::ValueId id) const { return shared_.at(id); }
  /// Takes the tensor itself, where it is on the device.
  void set_state(graph::ValueId id, const at::Tensor& tensor);
  /// Makes all of this rank's own what the checkpoints hold.
  void reset_shared_states();

  int64_t parameter_bytes() const { return plan_.parameter_bytes(stages_); }
  /// A parameter or buffer of the plan, whether this rank holds it or not; as Weights::load, on the device.
  at::Tensor load(const graph::Value& value) const { return weights_.load(value).to(seat_.device); }
  /// Bytes of the checkpoints' mappings that this process has touched.
  int64_t resident_weight_bytes() const { return weights_.resident_bytes(); }

 private:
  /// The tokens of one lane, on their way from the last stage's rank.
  struct Tokens {
    comm::MessageHandle message;
    bool posted = false;
  };

  /// Ranks that a stage's messages are told to wait for: -1 where there is none.
  struct Neighbours {
    int first_producer = -1;
    int first_consumer = -1;
    int last_consumer = -1;
  };

  void load_weights();
  void find_neighbours();
  template <typename F>
  void run_action(const schedule::Action& action, F execute);
  template <typename F>
  StepStats run_actions(F execute);
  void execute(const schedule::Action& action, TokenDriver& driver, StepStats& stats);
  void execute(const schedule::Action& action, BatchDriver& driver, StepStats& stats);
  int64_t send_tokens(int microbatch, TokenDriver& driver);
  void receive_tokens(int microbatch, TokenDriver& driver);
  void post_tokens(int microbatch, TokenDriver& driver);
  comm::ActionPlace place(const schedule::Action& action) const;

  Seat seat_;
  plan::Plan plan_;
  mesh::Coordinates at_;
  Weights weights_;
  std::vector<int> stages_;                       // of this rank
  std::map<int, Neighbours> neighbours_;          // by stage
  std::map<graph::ValueId, at::Tensor> tensors_;  // their parameters and buffers
  std::map<graph::ValueId, at::Tensor> shared_;   // their shared states
  std::map<int, TokenStage> token_stages_;        // made when first used
  std::vector<Tokens> tokens_;                    // by lane
  std::map<int, BatchStage> batch_stages_;        // of the last batch
};

}  // namespace shardpipe::runtime
