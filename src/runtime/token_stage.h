#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "comm/transport.h"
#include "graph/executor.h"
#include "plan/plan.h"
#include "runtime/driver.h"

namespace shardpipe::runtime {

/// One stage's part of steps whose messages have shapes that every rank can compute: generation. Each microbatch is a
/// lane with states (KV caches) of its own.
class TokenStage {
 public:
  /// `tensors`: parameters, buffers and shared states on the device; those that the stage uses are taken.
  TokenStage(
      const plan::Plan& plan,
      int stage,
      comm::Transport transport,
      const std::map<graph::ValueId, at::Tensor>& tensors,
      at::Device device = at::kCPU);

  /// Makes the states of `lanes.size()` lanes, each with the named dimensions given; what was in them before is gone.
  /// Memory is taken when it is first written.
  void reset_states(const std::vector<graph::Dimensions>& lanes);

  void forward(int microbatch, TokenDriver& driver);
  int64_t send(int microbatch);
  /// Begins to receive the values of the lane's current step, as soon as their shapes are known, so that the sender
  /// need not wait.
  void post(int microbatch, TokenDriver& driver);
  void receive(int microbatch, TokenDriver& driver);

 private:
  struct Arrival {
    at::Tensor buffer;
    comm::MessageHandle message;
    bool posted = false;
  };
  struct Lane {
    std::vector<at::Tensor> states;   // as states_
    std::vector<Arrival> values;      // as incoming_
    std::vector<at::Tensor> results;  // as outgoing_, between F and SEND_F
  };

  /// What runs in a step of these dimensions: all of the stage, or what is left of it where some are 0.
  graph::Executor& executor(const graph::Dimensions& dimensions);
  int tag(int microbatch, size_t edge) const;
  Lane& lane(int microbatch) { return lanes_[static_cast<size_t>(microbatch)]; }

  const plan::Plan& plan_;
  int stage_;
  comm::Transport transport_;
  at::Device device_;
  std::map<graph::ValueId, at::Tensor> tensors_;                 // that the stage uses
  std::map<std::set<std::string>, graph::Executor> executors_;   // by the dimensions that are 0
  std::vector<std::pair<std::string, graph::ValueId>> inputs_;   // of the model, that this stage uses
  std::vector<std::pair<std::string, graph::ValueId>> outputs_;  // of the model, that this stage computes
  std::vector<size_t> incoming_;                                 // edges: indices into plan_.stages.edges
  std::vector<size_t> outgoing_;
  std::vector<graph::ValueId> states_;
  std::vector<Lane> lanes_;
};

}  // namespace shardpipe::runtime
