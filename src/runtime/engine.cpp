#include "runtime/engine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <chrono>

#include "base/error.h"
#include "graph/without_empty.h"

namespace shardpipe::runtime {
namespace {

using schedule::Action;
using schedule::ActionKind;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A buffer of the message's shape, the old one where it fits: a step of decoding looks like the one before.
void fit(at::Tensor& buffer, const std::vector<int64_t>& shape, at::ScalarType dtype) {
  if (!buffer.defined() || buffer.sizes() != at::IntArrayRef(shape) || buffer.scalar_type() != dtype) {
    buffer = at::empty(shape, at::TensorOptions(dtype));
  }
}

}  // namespace

Seat seat_of(comm::World& world) {
  return {world.rank(), world.transport(mesh::Axis::pp), &world.monitor()};
}

Engine::Engine(const plan::Plan& plan, Seat seat, TensorSource tensors)
    : plan_(plan),
      source_(std::move(tensors)),
      seat_(std::move(seat)),
      executor_(plan_.stages.graphs[static_cast<size_t>(stage())]) {
  at::set_num_threads(plan_.threads);
  const graph::Graph& part = plan_.stages.graphs[static_cast<size_t>(stage())];
  for (size_t e = 0; e < plan_.stages.edges.size(); ++e) {
    const partition::Edge& edge = plan_.stages.edges[e];
    if (edge.to_stage == stage()) {
      incoming_.push_back(e);
    } else if (edge.from_stage == stage()) {
      outgoing_.push_back(e);
    }
  }
  for (const graph::ValueId id : part.inputs) {
    // An edge's value is an input of the stage, but no input of the model.
    if (plan_.graph.values[static_cast<size_t>(id)].kind == graph::ValueKind::input) {
      inputs_.emplace_back(part.values[static_cast<size_t>(id)].name, id);
    }
  }
  for (const graph::Output& output : part.outputs) {
    if (output.name != partition::edge_name(output.value)) {
      outputs_.emplace_back(output.name, output.value);
    }
  }
  for (const std::string& path : plan_.checkpoints) {
    checkpoints_.push_back(checkpoint::Checkpoint::open(path));
  }
  load_weights();
}

at::Tensor Engine::load(const graph::Value& value) const {
  if (value.content.defined()) {
    return value.content;
  }
  const auto source = plan_.weights.find(value.name);
  if (source == plan_.weights.end() && source_) {
    return source_(value.name);
  }
  if (source == plan_.weights.end()) {
    throw_internal("the plan has no source for the weight \"{}\"", value.name);
  }
  const checkpoint::Checkpoint& checkpoint = *checkpoints_.at(static_cast<size_t>(source->second.checkpoint));
  at::Tensor weight = checkpoint.load(source->second.name, *value.dtype);
  if (value.shape && weight.sizes() != at::IntArrayRef(graph::evaluate(*value.shape, {}))) {
    throw_input(
        "the weight \"{}\" in {} has shape {}, the plan was made for {}", source->second.name,
        checkpoint.path().string(), c10::str(weight.sizes()), graph::to_string(*value.shape));
  }
  return weight;
}

void Engine::load_weights() {
  const graph::Graph& part = plan_.stages.graphs[static_cast<size_t>(stage())];
  for (const graph::ValueId id : part.used_tensors()) {
    const graph::Value& value = part.values[static_cast<size_t>(id)];
    if (value.kind != graph::ValueKind::state) {
      tensors_[id] = load(value);
      executor_.set(id, tensors_[id]);
    } else if (value.state == graph::StateKind::per_sequence) {
      states_.push_back(id);
    } else {
      shared_[id] = load(value).clone();  // the file is not written to
      executor_.set(id, shared_[id]);
    }
  }
}

int64_t Engine::resident_weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& checkpoint : checkpoints_) {
    bytes += static_cast<int64_t>(checkpoint->resident_bytes());
  }
  return bytes;
}

void Engine::reset_states(const std::vector<graph::Dimensions>& lanes) {
  const c10::InferenceMode inference;
  const graph::Graph& part = plan_.stages.graphs[static_cast<size_t>(stage())];
  lanes_.clear();
  for (const graph::Dimensions& dimensions : lanes) {
    Lane& made = lanes_.emplace_back();
    for (const graph::ValueId id : states_) {
      const graph::Value& value = part.values[static_cast<size_t>(id)];
      made.states.push_back(at::empty(graph::evaluate(*value.shape, dimensions), at::TensorOptions(*value.dtype)));
    }
    made.values.resize(incoming_.size());
    made.results.resize(outgoing_.size());
  }
}

graph::Executor& Engine::executor_for(const graph::Dimensions& dimensions) {
  std::set<std::string> zero;
  for (const auto& [name, size] : dimensions) {
    if (size == 0) {
      zero.insert(name);
    }
  }
  if (zero.empty()) {
    return executor_;
  }
  const auto known = partial_.find(zero);
  if (known != partial_.end()) {
    return known->second;
  }
  const graph::Graph left = graph::without_empty(plan_.stages.graphs[static_cast<size_t>(stage())], zero);
  graph::Executor executor(left);
  for (const graph::ValueId id : left.used_tensors()) {
    const graph::Value& value = left.values[static_cast<size_t>(id)];
    if (const auto held = tensors_.find(id); held != tensors_.end()) {
      executor.set(id, held->second);
    } else if (value.content.defined()) {
      executor.set(id, value.content);
    }
  }
  return partial_.emplace(std::move(zero), std::move(executor)).first->second;
}

int Engine::tag(int microbatch, size_t edge) const {
  // Tag 0.. of each lane: its tokens; then its edges.
  return static_cast<int>(static_cast<size_t>(microbatch) + lanes_.size() * (edge + 1));
}

comm::ActionPlace Engine::place(const Action& action) const {
  comm::ActionPlace place{action.stage, action.microbatch, -1, -1};
  if (action.kind == ActionKind::RECV_F && !incoming_.empty()) {
    place.from = seat_.pipeline.ranks()[static_cast<size_t>(plan_.stages.edges[incoming_[0]].from_stage)];
  } else if (action.kind == ActionKind::RECV_T) {
    place.from = seat_.pipeline.ranks().back();
  } else if (action.kind == ActionKind::RECV_B && !outgoing_.empty()) {
    place.from = seat_.pipeline.ranks()[static_cast<size_t>(plan_.stages.edges[outgoing_.back()].to_stage)];
  } else if (action.kind == ActionKind::SEND_F && !outgoing_.empty()) {
    place.to = seat_.pipeline.ranks()[static_cast<size_t>(plan_.stages.edges[outgoing_[0]].to_stage)];
  } else if (action.kind == ActionKind::SEND_B && !incoming_.empty()) {
    place.to = seat_.pipeline.ranks()[static_cast<size_t>(plan_.stages.edges[incoming_[0]].from_stage)];
  }
  return place;
}

void Engine::forward(int microbatch, TokenDriver& driver) {
  Lane& at = lane(microbatch);
  graph::Executor& executor = executor_for(driver.dimensions(microbatch));
  for (const auto& [name, id] : inputs_) {
    executor.set(id, driver.input(microbatch, name));
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

int64_t Engine::send_values(int microbatch) {
  Lane& at = lane(microbatch);
  int64_t bytes = 0;
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    bytes += static_cast<int64_t>(at.results[i].nbytes());
    if (at.results[i].numel() > 0) {  // both ends know
      seat_.pipeline.isend(at.results[i], plan_.stages.edges[outgoing_[i]].to_stage, tag(microbatch, outgoing_[i]));
    }
    at.results[i].reset();
  }
  return bytes;
}

void Engine::post_values(int microbatch, TokenDriver& driver) {
  Lane& at = lane(microbatch);
  for (size_t i = 0; i < incoming_.size(); ++i) {
    const partition::Edge& edge = plan_.stages.edges[incoming_[i]];
    const graph::Value& value = plan_.graph.values[static_cast<size_t>(edge.value)];
    Arrival& arrival = at.values[i];
    if (!arrival.posted) {
      fit(arrival.buffer, graph::evaluate(*value.shape, driver.dimensions(microbatch)), *value.dtype);
      if (arrival.buffer.numel() > 0) {
        arrival.message = seat_.pipeline.irecv(arrival.buffer, edge.from_stage, tag(microbatch, incoming_[i]));
      }
      arrival.posted = true;
    }
  }
}

void Engine::receive_values(int microbatch, TokenDriver& driver) {
  post_values(microbatch, driver);
  for (Arrival& arrival : lane(microbatch).values) {
    arrival.message.wait();
    arrival.posted = false;
  }
}

void Engine::post_tokens(int microbatch, TokenDriver& driver) {
  Arrival& arrival = lane(microbatch).tokens;
  if (!arrival.posted) {
    arrival.message = seat_.pipeline.irecv(driver.tokens(microbatch), plan_.layout.pp - 1, microbatch);
    arrival.posted = true;
  }
}

void Engine::receive_tokens(int microbatch, TokenDriver& driver) {
  post_tokens(microbatch, driver);
  Arrival& arrival = lane(microbatch).tokens;
  arrival.message.wait();
  arrival.posted = false;
  driver.advance(microbatch);
}

int64_t Engine::send_tokens(int microbatch, TokenDriver& driver) {
  int64_t bytes = 0;
  const at::Tensor tokens = driver.tokens(microbatch);
  for (int peer = 0; peer + 1 < plan_.layout.pp; ++peer) {
    seat_.pipeline.isend(tokens, peer, microbatch);
    bytes += static_cast<int64_t>(tokens.nbytes());
  }
  driver.advance(microbatch);
  return bytes;
}

void Engine::execute(const Action& action, TokenDriver& driver, StepStats& stats) {
  const Clock::time_point start = Clock::now();
  const int microbatch = action.microbatch;
  switch (action.kind) {
    case ActionKind::F:
      forward(microbatch, driver);
      stats.compute_s += seconds_since(start);
      if (!is_last_stage()) {
        post_tokens(microbatch, driver);
      }
      return;
    case ActionKind::SEND_F:
      stats.bytes_sent += send_values(microbatch);
      return;
    case ActionKind::SEND_T:
      stats.bytes_sent += send_tokens(microbatch, driver);
      break;
    case ActionKind::RECV_F:
      receive_values(microbatch, driver);
      stats.wait_s += seconds_since(start);
      return;
    case ActionKind::RECV_T:
      receive_tokens(microbatch, driver);
      stats.wait_s += seconds_since(start);
      break;
    case ActionKind::B:
    case ActionKind::SEND_B:
    case ActionKind::RECV_B:
      throw_internal("{} in a step of tokens", to_string(action));
  }
  // The lane's next step is known now: its values may come.
  if (driver.active(microbatch)) {
    post_values(microbatch, driver);
  }
}

void Engine::execute(const Action& action, BatchDriver& driver, StepStats& stats) {
  const Clock::time_point start = Clock::now();
  switch (action.kind) {
    case ActionKind::F:
      batch_->forward(action.microbatch, driver);
      stats.compute_s += seconds_since(start);
      return;
    case ActionKind::B:
      batch_->backward(action.microbatch, driver);
      stats.compute_s += seconds_since(start);
      return;
    case ActionKind::SEND_F:
      stats.bytes_sent += batch_->send_forward(action.microbatch);
      return;
    case ActionKind::SEND_B:
      stats.bytes_sent += batch_->send_backward(action.microbatch);
      return;
    case ActionKind::RECV_F:
      batch_->receive_forward(action.microbatch);
      stats.wait_s += seconds_since(start);
      return;
    case ActionKind::RECV_B:
      batch_->receive_backward(action.microbatch);
      stats.wait_s += seconds_since(start);
      return;
    case ActionKind::SEND_T:
    case ActionKind::RECV_T:
      throw_internal("{} in a batch", to_string(action));
  }
}

void Engine::begin_batch(int microbatches, bool gradients) {
  batch_.emplace(plan_, stage(), seat_.pipeline, tensors_, shared_, microbatches, gradients);
}

std::vector<ParameterGradient> Engine::parameter_gradients() const {
  return batch_->parameter_gradients();
}

template <typename F>
void Engine::run_action(const Action& action, F execute) {
  const std::string name = to_string(action);
  monitor().begin_action(name, place(action));
  try {
    execute();
  } catch (...) {
    Error error = current_error();
    if (error.code() != ErrorCode::rank) {
      error.add_context(fmt::format("rank {}, action {}", seat_.rank, name));
    }
    monitor().end_action();
    throw error;
  }
  monitor().end_action();
}

StepStats Engine::run(const std::vector<Action>& actions, TokenDriver& driver) {
  const c10::InferenceMode inference;
  StepStats stats;
  for (const Action& action : actions) {
    if (driver.active(action.microbatch)) {
      run_action(action, [&] { execute(action, driver, stats); });
    }
  }
  return stats;
}

StepStats Engine::run(const std::vector<Action>& actions, BatchDriver& driver) {
  const c10::AutoGradMode no_grad(false);
  StepStats stats;
  for (const Action& action : actions) {
    run_action(action, [&] { execute(action, driver, stats); });
  }
  return stats;
}

}  // namespace shardpipe::runtime
