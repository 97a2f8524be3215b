#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <vector>

#include "comm/transport.h"
#include "graph/executor.h"
#include "plan/plan.h"
#include "runtime/bundle.h"
#include "runtime/driver.h"
#include "runtime/split_backward.h"
#include "runtime/use_sites.h"

namespace shardpipe::runtime {

/// Tags from here on are those of the microbatches' messages; below they are free for a batch's others.
constexpr int kFirstBatchTag = 8;

/// The gradient of one parameter of a stage: of each of its uses, in the order in which they are added; an undefined
/// tensor for a use that the loss does not depend on.
struct ParameterGradient {
  graph::ValueId parameter = graph::kNoValue;
  std::vector<at::Tensor> uses;
};

/// Whether a tensor of a plan is a parameter that a gradient can be asked for.
bool is_differentiable(const plan::Plan& plan, graph::ValueId id, const at::Tensor& tensor);

/// One stage's part of a batch of microbatches: forwards and, where asked for, backwards, and the messages between. All
/// messages carry kinds and shapes. The backward of a stage is a graph of its own: what arrives is a leaf, and its
/// gradients go back to where it came from.
class BatchStage {
 public:
  /// `tensors`: parameters and buffers. `states`: shared states, which the batch updates. The stage takes those that it
  /// uses. They are on the device; what the driver gives and gets is on the CPU.
  BatchStage(
      const plan::Plan& plan,
      int stage,
      comm::Transport transport,
      const std::map<graph::ValueId, at::Tensor>& tensors,
      std::map<graph::ValueId, at::Tensor>& states,
      int microbatches,
      bool gradients,
      at::Device device = at::kCPU);

  void receive_forward(int microbatch);
  void forward(int microbatch, BatchDriver& driver);
  int64_t send_forward(int microbatch);
  void receive_backward(int microbatch);
  void backward(int microbatch, BatchDriver& driver);
  /// The same in two parts: first the gradients of what was received, later those of the parameters.
  void backward_inputs(int microbatch, BatchDriver& driver);
  void backward_weights(int microbatch);
  int64_t send_backward(int microbatch);

  /// Of all parameters of the stage, summed over the backwards that ran.
  std::vector<ParameterGradient> parameter_gradients() const;

 private:
  /// The values that go to, or come from, one other stage; and how many gradients return for each.
  struct Peer {
    int stage = 0;
    std::vector<graph::ValueId> values;
    std::vector<size_t> gradients;
    size_t num_gradients() const;
  };
  struct Microbatch {
    std::map<graph::ValueId, Received> received;
    std::map<graph::ValueId, std::vector<at::Tensor>> leaves;     // received values that require grad
    std::map<graph::ValueId, c10::IValue> sent;                   // with their history until the backward
    std::vector<std::pair<std::string, at::Tensor>> outputs;      // that the loss may be among
    std::map<graph::ValueId, std::vector<at::Tensor>> gradients;  // of sent values, in the order of their sum
    std::map<graph::ValueId, std::vector<at::Tensor>> returned;   // of received values
    std::optional<SplitBackward> split;                           // between its two parts
  };
  /// What a backward begins with: tensors, and their gradients.
  struct Roots {
    std::vector<at::Tensor> tensors;
    std::vector<at::Tensor> gradients;
  };

  void find_peers();
  void set_tensors(const std::map<graph::ValueId, at::Tensor>& tensors);
  void set_received(Microbatch& at);
  void set_states();
  Roots take_roots(Microbatch& at, int number, BatchDriver& driver) const;
  void add_parameter_gradients(const std::vector<at::Tensor>& gradients);
  int tag(int microbatch, int from_stage, int to_stage, bool backward) const;
  Microbatch& microbatch(int number) { return microbatches_[static_cast<size_t>(number)]; }

  const plan::Plan& plan_;
  int stage_;
  comm::Transport transport_;
  std::map<graph::ValueId, at::Tensor&> states_;
  bool gradients_;
  at::Device device_;
  schedule::StageEdges pairs_;   // of the plan
  std::vector<Peer> producers_;  // stages before this one that send to it, in order
  std::vector<Peer> consumers_;
  SeparatedUses uses_;
  std::vector<graph::ValueId> written_;
  graph::Executor executor_;
  std::vector<std::pair<std::string, graph::ValueId>> inputs_;
  std::vector<std::pair<std::string, graph::ValueId>> outputs_;
  std::vector<ParameterGradient> parameters_;  // sums so far
  std::vector<at::Tensor> parameter_leaves_;   // of all their uses, in order
  std::vector<Microbatch> microbatches_;
};

}  // namespace shardpipe::runtime
