#include "runtime/shared_state.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "runtime/bundle.h"

namespace shardpipe::runtime {
namespace {

using graph::ValueId;

constexpr int kStateTag = 0;  // no batch is under way

const graph::Value& value_of(const Engine& engine, ValueId id) {
  return engine.plan().graph.values[static_cast<size_t>(id)];
}

// What the states must be: of the checkpoint's dtype and shape.
std::map<std::string, ValueId> all_states(const Engine& engine) {
  std::map<std::string, ValueId> ids;
  for (int rank = 0; rank < engine.pipeline().size(); ++rank) {
    for (const ValueId id : engine.state_ids(rank)) {
      ids.emplace(value_of(engine, id).name, id);
    }
  }
  return ids;
}

}  // namespace

void check_state(const Engine& engine, const NamedTensors& state, const std::string& file) {
  const auto refuse = [&](const std::string& what) {
    throw Error(
        file.empty() ? ErrorCode::usage : ErrorCode::input,
        file.empty() ? "the state does not fit the model: " + what
                     : fmt::format("{} is no state of this model: {}", file, what),
        "");
  };
  const std::map<std::string, ValueId> known = all_states(engine);
  std::map<std::string, at::Tensor> given;
  for (const auto& [name, tensor] : state) {
    const auto found = known.find(name);
    if (found == known.end()) {
      refuse(fmt::format("the model has no state \"{}\"", name));
    }
    const graph::Value& value = value_of(engine, found->second);
    const bool same_shape = !value.shape || tensor.sizes() == at::IntArrayRef(graph::evaluate(*value.shape, {}));
    if (tensor.scalar_type() != value.dtype.value_or(tensor.scalar_type()) || !same_shape) {
      refuse(fmt::format(
          "\"{}\" is {}{}, must be {}{}", name, graph::dtype_name(tensor.scalar_type()), c10::str(tensor.sizes()),
          graph::dtype_name(value.dtype.value_or(tensor.scalar_type())),
          value.shape ? graph::to_string(*value.shape) : ""));
    }
    given[name] = tensor;
  }
  for (const auto& [name, id] : known) {
    if (!given.contains(name)) {
      refuse(fmt::format("\"{}\" is missing", name));
    }
  }
}

NamedTensors gather_state(Engine& engine) {
  const comm::ActionScope action(engine.monitor(), "state");
  const comm::Transport& pipeline = engine.pipeline();
  std::vector<c10::IValue> own;
  for (const ValueId id : engine.state_ids(engine.rank())) {
    own.emplace_back(engine.state(id).detach().clone());
  }
  if (engine.rank() != 0) {
    send_bundle(pipeline, own, 0, kStateTag);
    return {};
  }
  std::map<ValueId, at::Tensor> all;
  for (int rank = 0; rank < pipeline.size(); ++rank) {
    const std::vector<ValueId> ids = engine.state_ids(rank);
    if (rank > 0) {
      own.clear();
      for (Received& received : receive_bundle(pipeline, ids.size(), rank, kStateTag)) {
        own.push_back(std::move(received.value));
      }
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      all[ids[i]] = own[i].toTensor();
    }
  }
  NamedTensors state;
  for (const auto& [id, tensor] : all) {
    state.emplace_back(value_of(engine, id).name, tensor);
  }
  return state;
}

void scatter_state(Engine& engine, const NamedTensors& state, const std::string& file) {
  const comm::ActionScope action(engine.monitor(), "state", {.from = engine.rank() == 0 ? -1 : 0});
  const comm::Transport& pipeline = engine.pipeline();
  const std::vector<ValueId> ids = engine.state_ids(engine.rank());
  if (engine.rank() != 0) {
    const std::vector<Received> received = receive_bundle(pipeline, ids.size(), 0, kStateTag);
    for (size_t i = 0; i < ids.size(); ++i) {
      engine.set_state(ids[i], received[i].value.toTensor());
    }
    return;
  }
  check_state(engine, state, file);
  std::map<std::string, at::Tensor> given(state.begin(), state.end());
  for (int rank = 1; rank < pipeline.size(); ++rank) {
    std::vector<c10::IValue> values;
    for (const ValueId id : engine.state_ids(rank)) {
      values.emplace_back(given.at(value_of(engine, id).name));
    }
    send_bundle(pipeline, values, rank, kStateTag);
  }
  for (const ValueId id : ids) {
    engine.set_state(id, given.at(value_of(engine, id).name).clone());
  }
}

}  // namespace shardpipe::runtime
