#include "runtime/token_stage.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include "graph/without_empty.h"
#include "runtime/bundle.h"

namespace shardpipe::runtime {
namespace {

// A buffer of the message's shape, the old one where it fits: a step of decoding looks like the one before.
void fit(at::Tensor& buffer, const std::vector<int64_t>& shape, const at::TensorOptions& options) {
  if (!buffer.defined() || buffer.sizes() != at::IntArrayRef(shape) || buffer.dtype() != options.dtype()) {
    buffer = at::empty(shape, options);
  }
}

}  // namespace

TokenStage::TokenStage(
    const plan::Plan& plan,
    int stage,
    comm::Transport transport,
    const std::map<graph::ValueId, at::Tensor>& tensors,
    at::Device device)
    : plan_(plan),
      stage_(stage),
      transport_(std::move(transport)),
      device_(device),
      inputs_(plan.stage_inputs(stage)),
      outputs_(plan.stage_outputs(stage)) {
  for (size_t e = 0; e < plan_.stages.edges.size(); ++e) {
    const partition::Edge& edge = plan_.stages.edges[e];
    if (edge.to_stage == stage_) {
      incoming_.push_back(e);
    } else if (edge.from_stage == stage_) {
      outgoing_.push_back(e);
    }
  }
  const graph::Graph& part = plan_.stages.graphs[static_cast<size_t>(stage_)];
  for (const graph::ValueId id : part.used_tensors()) {
    const graph::Value& value = part.values[static_cast<size_t>(id)];
    if (value.kind == graph::ValueKind::state && value.state == graph::StateKind::per_sequence) {
      states_.push_back(id);
    } else {
      tensors_[id] = tensors.at(id);
    }
  }
}

void TokenStage::reset_states(const std::vector<graph::Dimensions>& lanes) {
  const c10::InferenceMode inference;
  lanes_.clear();
  for (const graph::Dimensions& dimensions : lanes) {
    Lane& made = lanes_.emplace_back();
    for (const graph::ValueId id : states_) {
      const graph::Value& value = plan_.graph.values[static_cast<size_t>(id)];
      const at::TensorOptions options = at::TensorOptions(*value.dtype).device(device_);
      made.states.push_back(at::empty(graph::evaluate(*value.shape, dimensions), options));
    }
    made.values.resize(incoming_.size());
    made.results.resize(outgoing_.size());
  }
}

graph::Executor& TokenStage::executor(const graph::Dimensions& dimensions) {
  std::set<std::string> zero;
  for (const auto& [name, size] : dimensions) {
    if (size == 0) {
      zero.insert(name);
    }
  }
  if (const auto known = executors_.find(zero); known != executors_.end()) {
    return known->second;
  }
  const graph::Graph& part = plan_.stages.graphs[static_cast<size_t>(stage_)];
  const graph::Graph left = zero.empty() ? part : graph::without_empty(part, zero);
  graph::Executor& made = executors_.try_emplace(std::move(zero), left).first->second;
  for (const graph::ValueId id : left.used_tensors()) {
    if (const auto held = tensors_.find(id); held != tensors_.end()) {
      made.set(id, held->second);
    } else if (const at::Tensor& content = left.values[static_cast<size_t>(id)].content; content.defined()) {
      made.set(id, content.to(device_));  // of a value without elements
    }
  }
  return made;
}

int TokenStage::tag(int microbatch, size_t edge) const {
  // The first tags are those of the lanes' tokens.
  return static_cast<int>(static_cast<size_t>(microbatch) + lanes_.size() * (edge + 1));
}

void TokenStage::forward(int microbatch, TokenDriver& driver) {
  Lane& at = lane(microbatch);
  graph::Executor& executor = this->executor(driver.dimensions(microbatch));
  for (const auto& [name, id] : inputs_) {
    executor.set(id, to_device(driver.input(microbatch, name), device_));
  }
  for (size_t i = 0; i < incoming_.size(); ++i) {
    executor.set(plan_.stages.edges[incoming_[i]].value, at.values[i].buffer);
  }
  for (size_t i = 0; i < states_.size(); ++i) {
    executor.set(states_[i], at.states[i]);
  }
  executor.run();
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    at.results[i] = executor.get(plan_.stages.edges[outgoing_[i]].value).toTensor().contiguous();
  }
  if (!outputs_.empty()) {
    std::vector<std::pair<std::string, c10::IValue>> values;
    for (const auto& [name, id] : outputs_) {
      values.emplace_back(name, executor.get(id));
    }
    driver.outputs(microbatch, values);
  }
  executor.release_results();
}

int64_t TokenStage::send(int microbatch) {
  Lane& at = lane(microbatch);
  int64_t bytes = 0;
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    bytes += static_cast<int64_t>(at.results[i].nbytes());
    const int rank = plan_.rank_of_stage(plan_.stages.edges[outgoing_[i]].to_stage);
    if (at.results[i].numel() > 0) {  // both ends know
      transport_.isend(at.results[i], rank, tag(microbatch, outgoing_[i]));
    }
    at.results[i].reset();
  }
  return bytes;
}

void TokenStage::post(int microbatch, TokenDriver& driver) {
  Lane& at = lane(microbatch);
  for (size_t i = 0; i < incoming_.size(); ++i) {
    const partition::Edge& edge = plan_.stages.edges[incoming_[i]];
    const graph::Value& value = plan_.graph.values[static_cast<size_t>(edge.value)];
    Arrival& arrival = at.values[i];
    if (!arrival.posted) {
      fit(arrival.buffer, graph::evaluate(*value.shape, driver.dimensions(microbatch)),
          at::TensorOptions(*value.dtype).device(device_));
      if (arrival.buffer.numel() > 0) {
        arrival.message =
            transport_.irecv(arrival.buffer, plan_.rank_of_stage(edge.from_stage), tag(microbatch, incoming_[i]));
      }
      arrival.posted = true;
    }
  }
}

void TokenStage::receive(int microbatch, TokenDriver& driver) {
  post(microbatch, driver);
  for (Arrival& arrival : lane(microbatch).values) {
    arrival.message.wait();
    arrival.posted = false;
  }
}

}  // namespace shardpipe::runtime
