#include "runtime/batch_stage.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace shardpipe::runtime {
namespace {

using graph::ValueId;
using graph::ValueKind;

// Values whose uses are separated in this stage.
std::vector<ValueId> values_to_separate(const plan::Plan& plan, int stage, bool gradients) {
  if (!gradients) {
    return {};
  }
  std::vector<ValueId> values = shared_parameters(plan, stage);
  for (const partition::Edge& edge : plan.stages.edges) {
    if (edge.to_stage == stage && gradients_returned(plan, edge) > 1) {
      values.push_back(edge.value);
    }
  }
  return values;
}

// In the order of the list: sums in floating point depend on it. Undefined when no item is defined.
at::Tensor sum(const std::vector<at::Tensor>& tensors) {
  at::Tensor total;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined()) {
      total = total.defined() ? total + tensor : tensor;
    }
  }
  return total;
}

}  // namespace

bool is_differentiable(const plan::Plan& plan, ValueId id, const at::Tensor& tensor) {
  const graph::Value& value = plan.graph.values[static_cast<size_t>(id)];
  return c10::isFloatingType(tensor.scalar_type()) && value.kind == ValueKind::parameter &&
         plan.frozen.count(value.name) == 0;
}

size_t BatchStage::Peer::num_gradients() const {
  return std::accumulate(gradients.begin(), gradients.end(), size_t{0});
}

BatchStage::BatchStage(
    const plan::Plan& plan,
    int stage,
    comm::Transport transport,
    const std::map<ValueId, at::Tensor>& tensors,
    std::map<ValueId, at::Tensor>& states,
    int microbatches,
    bool gradients,
    at::Device device)
    : plan_(plan),
      stage_(stage),
      transport_(std::move(transport)),
      gradients_(gradients),
      device_(device),
      pairs_(plan.stage_edges()),
      uses_(separate_uses(plan.stages.graphs[static_cast<size_t>(stage)], values_to_separate(plan, stage, gradients))),
      written_(written_values(plan.stages.graphs[static_cast<size_t>(stage)])),
      executor_(uses_.graph),
      inputs_(plan.stage_inputs(stage)),
      outputs_(plan.stage_outputs(stage)),
      microbatches_(static_cast<size_t>(microbatches)) {
  find_peers();
  for (const ValueId id : plan_.stages.graphs[static_cast<size_t>(stage_)].used_tensors()) {
    if (const auto state = states.find(id); state != states.end()) {
      states_.emplace(id, state->second);
    }
  }
  set_tensors(tensors);
}

void BatchStage::find_peers() {
  // The edges are sorted by producer, consumer and value: both ends list a peer's values in the same order.
  const auto add = [&](std::vector<Peer>& peers, int stage, const partition::Edge& edge) {
    auto peer = std::find_if(peers.begin(), peers.end(), [&](const Peer& known) { return known.stage == stage; });
    if (peer == peers.end()) {
      peer = peers.insert(peers.end(), Peer{stage, {}, {}});
    }
    peer->values.push_back(edge.value);
    peer->gradients.push_back(gradients_ ? gradients_returned(plan_, edge) : 0);
  };
  for (const partition::Edge& edge : plan_.stages.edges) {
    if (edge.to_stage == stage_) {
      add(producers_, edge.from_stage, edge);
    } else if (edge.from_stage == stage_) {
      add(consumers_, edge.to_stage, edge);
    }
  }
}

void BatchStage::set_tensors(const std::map<ValueId, at::Tensor>& tensors) {
  for (const ValueId id : plan_.stages.graphs[static_cast<size_t>(stage_)].used_tensors()) {
    const auto held = tensors.find(id);
    if (held == tensors.end()) {
      continue;  // a state
    }
    const at::Tensor& tensor = held->second;
    if (!is_differentiable(plan_, id, tensor)) {
      executor_.set(id, tensor);
      continue;
    }
    if (!gradients_) {
      // As in Python under no_grad: which way LibTorch takes for a product depends on it.
      executor_.set(id, tensor.detach().requires_grad_());
      continue;
    }
    ParameterGradient& parameter = parameters_.emplace_back(ParameterGradient{id, {}});
    const auto copies = uses_.copies.find(id);
    for (const ValueId use : copies == uses_.copies.end() ? std::vector<ValueId>{id} : copies->second) {
      parameter_leaves_.push_back(tensor.detach().requires_grad_());
      parameter.uses.emplace_back();
      executor_.set(use, parameter_leaves_.back());
    }
  }
}

int BatchStage::tag(int microbatch, int from_stage, int to_stage, bool backward) const {
  // Two ranks may hold several pairs of stages.
  const auto pair = std::lower_bound(pairs_.begin(), pairs_.end(), std::pair(from_stage, to_stage)) - pairs_.begin();
  const int slot = microbatch * static_cast<int>(pairs_.size()) + static_cast<int>(pair);
  return kFirstBatchTag + 2 * slot + (backward ? 1 : 0);
}

void BatchStage::receive_forward(int number) {
  for (const Peer& peer : producers_) {
    std::vector<Received> values = receive_bundle(
        transport_, peer.values.size(), plan_.rank_of_stage(peer.stage), tag(number, peer.stage, stage_, false),
        device_);
    for (size_t i = 0; i < values.size(); ++i) {
      microbatch(number).received[peer.values[i]] = std::move(values[i]);
    }
  }
}

void BatchStage::set_received(Microbatch& at) {
  for (auto& [id, received] : at.received) {
    if (!gradients_ || !received.requires_grad) {
      const auto copies = uses_.copies.find(id);
      for (const ValueId use : copies == uses_.copies.end() ? std::vector<ValueId>{id} : copies->second) {
        executor_.set(use, received.value);
      }
      continue;
    }
    const at::Tensor tensor = received.value.toTensor();
    std::vector<at::Tensor>& leaves = at.leaves[id];
    const auto copies = uses_.copies.find(id);
    for (const ValueId use : copies == uses_.copies.end() ? std::vector<ValueId>{id} : copies->second) {
      leaves.push_back(tensor.detach().requires_grad_());
      const bool written = std::find(written_.begin(), written_.end(), id) != written_.end();
      executor_.set(use, written ? leaves.back().clone() : leaves.back());  // a leaf cannot be written in place
    }
  }
  at.received.clear();
}

void BatchStage::set_states() {
  for (auto& [id, state] : states_) {
    if (gradients_) {
      state = state.detach().clone();  // backwards of earlier microbatches may still need what it was
    }
    executor_.set(id, state);
  }
}

void BatchStage::forward(int number, BatchDriver& driver) {
  Microbatch& at = microbatch(number);
  const c10::AutoGradMode mode(gradients_);
  for (const auto& [name, id] : inputs_) {
    executor_.set(id, to_device(driver.input(number, name), device_));
  }
  set_received(at);
  set_states();
  executor_.run();
  for (auto& [id, state] : states_) {
    state = executor_.get(id).toTensor();  // written in place, or bound to another tensor
  }
  for (const Peer& peer : consumers_) {
    for (const ValueId id : peer.values) {
      at.sent[id] = executor_.get(id);
    }
  }
  std::vector<std::pair<std::string, c10::IValue>> outputs;
  for (const auto& [name, id] : outputs_) {
    c10::IValue value = executor_.get(id);
    if (value.isTensor()) {
      const at::Tensor tensor = value.toTensor();
      if (driver.differentiates(name)) {
        at.outputs.emplace_back(name, tensor);
      }
      // The next microbatch writes states in place.
      const bool state = std::any_of(
          states_.begin(), states_.end(), [&](const auto& entry) { return entry.second.is_alias_of(tensor); });
      value = (state ? tensor.detach().clone() : tensor.detach()).to(at::kCPU);
    }
    outputs.emplace_back(name, std::move(value));
  }
  StageValues computed(at.sent.begin(), at.sent.end());
  for (const auto& [name, id] : outputs_) {
    computed.emplace_back(id, executor_.get(id));
  }
  driver.computed(stage_, number, computed);
  driver.outputs(number, outputs);
  executor_.release_results();
}

int64_t BatchStage::send_forward(int number) {
  Microbatch& at = microbatch(number);
  int64_t bytes = 0;
  for (const Peer& peer : consumers_) {
    std::vector<c10::IValue> values;
    for (const ValueId id : peer.values) {
      values.push_back(to_device(at.sent.at(id), device_));
    }
    bytes += send_bundle(transport_, values, plan_.rank_of_stage(peer.stage), tag(number, stage_, peer.stage, false));
  }
  if (!gradients_) {
    at.sent.clear();
  }
  return bytes;
}

void BatchStage::receive_backward(int number) {
  // Later consumers come first in the sums, as in the backward of the uncut graph.
  for (auto peer = consumers_.rbegin(); peer != consumers_.rend(); ++peer) {
    const std::vector<Received> gradients = receive_bundle(
        transport_, peer->num_gradients(), plan_.rank_of_stage(peer->stage), tag(number, stage_, peer->stage, true),
        device_);
    auto next = gradients.begin();
    for (size_t i = 0; i < peer->values.size(); ++i) {
      std::vector<at::Tensor>& list = microbatch(number).gradients[peer->values[i]];
      for (size_t use = 0; use < peer->gradients[i]; ++use, ++next) {
        list.push_back(next->value.isTensor() ? next->value.toTensor() : at::Tensor());
      }
    }
  }
}

BatchStage::Roots BatchStage::take_roots(Microbatch& at, int number, BatchDriver& driver) const {
  Roots roots;
  const auto add = [&](const at::Tensor& root, const at::Tensor& gradient) {
    if (root.requires_grad() && gradient.defined()) {
      roots.tensors.push_back(root);
      roots.gradients.push_back(gradient.to(root.device()));
    }
  };
  for (const auto& [name, tensor] : at.outputs) {
    add(tensor, driver.gradient(number, name));
  }
  for (const auto& [id, gradients] : at.gradients) {
    const c10::IValue& value = at.sent.at(id);
    if (value.isTensor()) {
      add(value.toTensor(), sum(gradients));
    }
  }
  at.sent.clear();
  at.outputs.clear();
  at.gradients.clear();
  return roots;
}

void BatchStage::add_parameter_gradients(const std::vector<at::Tensor>& gradients) {
  auto next = gradients.begin();
  for (ParameterGradient& parameter : parameters_) {
    for (at::Tensor& total : parameter.uses) {
      if (next->defined()) {
        total = total.defined() ? total + *next : *next;
      }
      ++next;
    }
  }
}

void BatchStage::backward(int number, BatchDriver& driver) {
  Microbatch& at = microbatch(number);
  const Roots roots = take_roots(at, number, driver);
  std::vector<at::Tensor> leaves = parameter_leaves_;
  for (const auto& [id, list] : at.leaves) {
    leaves.insert(leaves.end(), list.begin(), list.end());
  }
  torch::autograd::variable_list gradients(leaves.size());
  if (!roots.tensors.empty() && !leaves.empty()) {
    gradients = torch::autograd::grad(roots.tensors, leaves, roots.gradients, false, false, /*allow_unused=*/true);
  }
  add_parameter_gradients(gradients);
  auto next = gradients.begin() + static_cast<ptrdiff_t>(parameter_leaves_.size());
  for (const auto& [id, list] : at.leaves) {
    at.returned[id].assign(next, next + static_cast<ptrdiff_t>(list.size()));
    next += static_cast<ptrdiff_t>(list.size());
  }
  at.leaves.clear();
}

void BatchStage::backward_inputs(int number, BatchDriver& driver) {
  Microbatch& at = microbatch(number);
  Roots roots = take_roots(at, number, driver);
  std::vector<at::Tensor> received;
  for (const auto& [id, list] : at.leaves) {
    received.insert(received.end(), list.begin(), list.end());
  }
  at.split.emplace(std::move(roots.tensors), std::move(roots.gradients), received, parameter_leaves_);
  const std::vector<at::Tensor> gradients = at.split->input_gradients();
  auto next = gradients.begin();
  for (const auto& [id, list] : at.leaves) {
    at.returned[id].assign(next, next + static_cast<ptrdiff_t>(list.size()));
    next += static_cast<ptrdiff_t>(list.size());
  }
  at.leaves.clear();
}

void BatchStage::backward_weights(int number) {
  Microbatch& at = microbatch(number);
  add_parameter_gradients(at.split->weight_gradients());
  at.split.reset();
}

int64_t BatchStage::send_backward(int number) {
  Microbatch& at = microbatch(number);
  int64_t bytes = 0;
  for (const Peer& peer : producers_) {
    std::vector<c10::IValue> values;
    for (size_t i = 0; i < peer.values.size(); ++i) {
      std::vector<at::Tensor>& list = at.returned[peer.values[i]];
      list.resize(peer.gradients[i]);  // none for what requires no grad
      values.insert(values.end(), list.begin(), list.end());
    }
    bytes += send_bundle(transport_, values, plan_.rank_of_stage(peer.stage), tag(number, peer.stage, stage_, true));
  }
  at.returned.clear();
  return bytes;
}

std::vector<ParameterGradient> BatchStage::parameter_gradients() const {
  return parameters_;
}

}  // namespace shardpipe::runtime
