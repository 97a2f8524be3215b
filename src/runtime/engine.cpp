#include "runtime/engine.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <chrono>
#include <optional>

#include "base/error.h"
#include "runtime/axis_group.h"

namespace shardpipe::runtime {
namespace {

using schedule::Action;
using schedule::ActionKind;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Seat seat_of(comm::World& world) {
  const comm::Group& tp = world.group(mesh::Axis::tp);
  return {
      world.rank(),
      world.transport(mesh::Axis::pp),
      &world.monitor(),
      world.transport(),
      tp.size() > 1 ? std::make_shared<RankGroup>(tp, world.monitor()) : nullptr,
      world.device()};
}

Engine::Engine(const plan::Plan& plan, Seat seat, TensorSource tensors)
    : seat_(std::move(seat)),
      plan_(plan),
      at_(plan_.mesh().coordinates(seat_.rank)),
      weights_(plan_, std::move(tensors)),
      stages_(plan_.stages_of_rank(rank())) {
  plan_.select_part(at_.tp);
  plan_.move_to(seat_.device);
  at::set_num_threads(plan_.threads);
  find_neighbours();
  load_weights();
}

void Engine::load_weights() {
  for (const graph::ValueId id : held_tensors(plan_, rank())) {
    const graph::Value& value = plan_.graph.values[static_cast<size_t>(id)];
    if (value.kind != graph::ValueKind::state) {
      tensors_[id] = load(value);
      if (!seat_.device.is_cpu()) {
        weights_.release(value);
      }
    }
  }
  reset_shared_states();
}

std::vector<graph::ValueId> Engine::state_ids(int of_rank) const {
  std::vector<graph::ValueId> ids = held_tensors(plan_, of_rank);
  std::erase_if(ids, [&](graph::ValueId id) {
    return plan_.graph.values[static_cast<size_t>(id)].kind != graph::ValueKind::state;
  });
  return ids;
}

void Engine::set_state(graph::ValueId id, const at::Tensor& tensor) {
  shared_[id] = tensor.to(seat_.device);
  token_stages_.clear();  // they hold the tensors themselves; generation makes them anew
}

void Engine::reset_shared_states() {
  for (const graph::ValueId id : state_ids(rank())) {
    // A copy: the file is not written to.
    set_state(id, weights_.load(plan_.graph.values[static_cast<size_t>(id)]).clone());
  }
}

void Engine::reset_states(const std::vector<graph::Dimensions>& lanes) {
  std::map<graph::ValueId, at::Tensor> tensors = tensors_;
  tensors.insert(shared_.begin(), shared_.end());
  for (const int stage : stages_) {
    token_stages_.try_emplace(stage, plan_, stage, seat_.pipeline, tensors, seat_.device)
        .first->second.reset_states(lanes);
  }
  tokens_.clear();
  tokens_.resize(lanes.size());
}

void Engine::find_neighbours() {
  const std::vector<int>& ranks = seat_.pipeline.ranks();
  const auto rank_of = [&](int stage) { return ranks[static_cast<size_t>(plan_.rank_of_stage(stage))]; };
  for (const partition::Edge& edge : plan_.stages.edges) {  // sorted by producer and consumer
    Neighbours& producer = neighbours_[edge.from_stage];
    producer.first_consumer = producer.first_consumer < 0 ? rank_of(edge.to_stage) : producer.first_consumer;
    producer.last_consumer = rank_of(edge.to_stage);
    Neighbours& consumer = neighbours_[edge.to_stage];
    consumer.first_producer = consumer.first_producer < 0 ? rank_of(edge.from_stage) : consumer.first_producer;
  }
}

comm::ActionPlace Engine::place(const Action& action) const {
  const auto found = neighbours_.find(action.stage);
  const Neighbours near = found == neighbours_.end() ? Neighbours{} : found->second;
  comm::ActionPlace place{action.stage, action.microbatch, -1, -1};
  switch (action.kind) {
    case ActionKind::RECV_F:
      place.from = near.first_producer;
      break;
    case ActionKind::RECV_B:
      place.from = near.last_consumer;
      break;
    case ActionKind::RECV_T:
      place.from = seat_.pipeline.ranks()[static_cast<size_t>(plan_.rank_of_stage(plan_.num_stages() - 1))];
      break;
    case ActionKind::SEND_F:
      place.to = near.first_consumer;
      break;
    case ActionKind::SEND_B:
      place.to = near.first_producer;
      break;
    default:
      break;
  }
  return place;
}

void Engine::post_tokens(int microbatch, TokenDriver& driver) {
  Tokens& tokens = tokens_[static_cast<size_t>(microbatch)];
  if (!tokens.posted) {
    const int last = plan_.rank_of_stage(plan_.num_stages() - 1);
    tokens.message = seat_.pipeline.irecv(driver.tokens(microbatch), last, microbatch);
    tokens.posted = true;
  }
}

void Engine::receive_tokens(int microbatch, TokenDriver& driver) {
  post_tokens(microbatch, driver);
  Tokens& tokens = tokens_[static_cast<size_t>(microbatch)];
  tokens.message.wait();
  tokens.posted = false;
  driver.advance(microbatch);
}

int64_t Engine::send_tokens(int microbatch, TokenDriver& driver) {
  int64_t bytes = 0;
  const at::Tensor tokens = driver.tokens(microbatch);
  for (int peer = 0; peer < plan_.layout.pp; ++peer) {
    if (peer != rank()) {
      seat_.pipeline.isend(tokens, peer, microbatch);
      bytes += static_cast<int64_t>(tokens.nbytes());
    }
  }
  driver.advance(microbatch);
  return bytes;
}

void Engine::execute(const Action& action, TokenDriver& driver, StepStats& stats) {
  const Clock::time_point start = Clock::now();
  const int microbatch = action.microbatch;
  TokenStage& stage = token_stages_.at(action.stage);
  switch (action.kind) {
    case ActionKind::F:
      stage.forward(microbatch, driver);
      stats.compute_s += seconds_since(start);
      if (!has_last_stage()) {
        post_tokens(microbatch, driver);
      }
      return;
    case ActionKind::SEND_F:
      stats.bytes_sent += stage.send(microbatch);
      return;
    case ActionKind::SEND_T:
      stats.bytes_sent += send_tokens(microbatch, driver);
      break;
    case ActionKind::RECV_F:
      stage.receive(microbatch, driver);
      stats.wait_s += seconds_since(start);
      return;
    case ActionKind::RECV_T:
      receive_tokens(microbatch, driver);
      stats.wait_s += seconds_since(start);
      break;
    case ActionKind::B:
    case ActionKind::I:
    case ActionKind::W:
    case ActionKind::SEND_B:
    case ActionKind::RECV_B:
    case ActionKind::REDUCE_GRAD:
      throw_internal("{} in a step of tokens", to_string(action));
  }
  // The lane's next step is known now: its values may come.
  if (driver.active(microbatch)) {
    for (auto& [number, held] : token_stages_) {
      held.post(microbatch, driver);
    }
  }
}

void Engine::execute(const Action& action, BatchDriver& driver, StepStats& stats) {
  const Clock::time_point start = Clock::now();
  BatchStage& stage = batch_stages_.at(action.stage);
  switch (action.kind) {
    case ActionKind::F:
      stage.forward(action.microbatch, driver);
      stats.compute_s += seconds_since(start);
      return;
    case ActionKind::B:
      stage.backward(action.microbatch, driver);
      stats.compute_s += seconds_since(start);
      return;
    case ActionKind::I:
      stage.backward_inputs(action.microbatch, driver);
      stats.compute_s += seconds_since(start);
      return;
    case ActionKind::W:
      stage.backward_weights(action.microbatch);
      stats.compute_s += seconds_since(start);
      return;
    case ActionKind::SEND_F:
      stats.bytes_sent += stage.send_forward(action.microbatch);
      return;
    case ActionKind::SEND_B:
      stats.bytes_sent += stage.send_backward(action.microbatch);
      return;
    case ActionKind::RECV_F:
      stage.receive_forward(action.microbatch);
      stats.wait_s += seconds_since(start);
      return;
    case ActionKind::RECV_B:
      stage.receive_backward(action.microbatch);
      stats.wait_s += seconds_since(start);
      return;
    case ActionKind::SEND_T:
    case ActionKind::RECV_T:
    case ActionKind::REDUCE_GRAD:
      throw_internal("{} in a batch", to_string(action));
  }
}

void Engine::begin_batch(int microbatches, bool gradients) {
  batch_stages_.clear();
  for (const int stage : stages_) {
    batch_stages_.try_emplace(
        stage, plan_, stage, seat_.pipeline, tensors_, shared_, microbatches, gradients, seat_.device);
  }
}

std::vector<ParameterGradient> Engine::parameter_gradients(int stage) const {
  return batch_stages_.at(stage).parameter_gradients();
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

// What the actions took, of which collectives are a part.
template <typename F>
StepStats Engine::run_actions(F execute) {
  StepStats stats;
  if (!seat_.tp) {
    execute(stats);
    return stats;
  }
  const tensor::AxisScope scope("tp", *seat_.tp);
  const tensor::AxisTime before = seat_.tp->time();
  execute(stats);
  const tensor::AxisTime after = seat_.tp->time();
  const double all = static_cast<double>(after.ns - before.ns) * 1e-9;
  const double wait = static_cast<double>(after.wait_ns - before.wait_ns) * 1e-9;
  stats.compute_s -= all;
  stats.reduce_s = all - wait;
  stats.wait_s += wait;
  stats.bytes_sent += after.bytes - before.bytes;
  return stats;
}

StepStats Engine::run(const std::vector<Action>& actions, TokenDriver& driver) {
  const c10::InferenceMode inference;
  return run_actions([&](StepStats& stats) {
    for (const Action& action : actions) {
      if (driver.active(action.microbatch)) {
        run_action(action, [&] { execute(action, driver, stats); });
      }
    }
  });
}

StepStats Engine::run(const std::vector<Action>& actions, BatchDriver& driver) {
  const c10::AutoGradMode no_grad(false);
  return run_actions([&](StepStats& stats) {
    for (const Action& action : actions) {
      run_action(action, [&] { execute(action, driver, stats); });
    }
  });
}

}  // namespace shardpipe::runtime
