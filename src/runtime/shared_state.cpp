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

// The states that a rank brings to the gathering: whole ones are the same on all ranks of tp.
std::vector<ValueId> brought(const Engine& engine, int of_rank, int part) {
  std::vector<ValueId> ids = engine.state_ids(of_rank);
  if (part > 0) {
    std::erase_if(ids, [&](ValueId id) { return !engine.plan().shards.contains(value_of(engine, id).name); });
  }
  return ids;
}

// What the states must be: of the checkpoint's dtype and shape.
std::map<std::string, ValueId> all_states(const Engine& engine) {
  std::map<std::string, ValueId> ids;
  for (int rank = 0; rank < engine.plan().layout.pp; ++rank) {
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
    const std::optional<graph::Shape> shape = engine.plan().whole_shape(value);
    const bool same_shape = !shape || tensor.sizes() == at::IntArrayRef(graph::evaluate(*shape, {}));
    if (tensor.scalar_type() != value.dtype.value_or(tensor.scalar_type()) || !same_shape) {
      refuse(fmt::format(
          "\"{}\" is {}{}, must be {}{}", name, graph::dtype_name(tensor.scalar_type()), c10::str(tensor.sizes()),
          graph::dtype_name(value.dtype.value_or(tensor.scalar_type())), shape ? graph::to_string(*shape) : ""));
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
  const plan::Plan& plan = engine.plan();
  // The first replica's: it has a part of every batch that writes states.
  if (engine.at().dp > 0) {
    return {};
  }
  if (!engine.is_first()) {
    std::vector<c10::IValue> own;
    for (const ValueId id : brought(engine, engine.rank(), engine.at().tp)) {
      own.emplace_back(engine.state(id).detach().clone());
    }
    send_bundle(engine.world(), own, 0, kStateTag);
    return {};
  }
  std::map<ValueId, std::vector<at::Tensor>> pieces;
  for (int rank = 0; rank < plan.layout.pp; ++rank) {
    for (int part = 0; part < plan.layout.tp; ++part) {
      const std::vector<ValueId> ids = brought(engine, rank, part);
      const int from = engine.rank_at(rank, 0, part);
      std::vector<Received> received;
      if (from != 0) {
        received = receive_bundle(engine.world(), ids.size(), from, kStateTag);
      }
      for (size_t i = 0; i < ids.size(); ++i) {
        std::vector<at::Tensor>& known = pieces[ids[i]];
        if (known.size() <= static_cast<size_t>(part)) {  // of those that several ranks hold the first one's
          known.push_back(
              from == 0 ? engine.state(ids[i]).detach().clone().to(at::kCPU) : received[i].value.toTensor());
        }
      }
    }
  }
  NamedTensors state;
  for (const auto& [id, list] : pieces) {
    const std::string& name = value_of(engine, id).name;
    const auto shard = plan.shards.find(name);
    state.emplace_back(name, shard == plan.shards.end() ? list.front() : tensor::join(list, shard->second));
  }
  return state;
}

void scatter_state(Engine& engine, const NamedTensors& state, const std::string& file) {
  const comm::ActionScope action(engine.monitor(), "state", {.from = engine.is_first() ? -1 : 0});
  const plan::Plan& plan = engine.plan();
  const std::vector<ValueId> ids = engine.state_ids(engine.rank());
  if (!engine.is_first()) {
    const std::vector<Received> received = receive_bundle(engine.world(), ids.size(), 0, kStateTag);
    for (size_t i = 0; i < ids.size(); ++i) {
      engine.set_state(ids[i], received[i].value.toTensor());
    }
    return;
  }
  check_state(engine, state, file);
  const std::map<std::string, at::Tensor> given(state.begin(), state.end());
  const auto piece = [&](ValueId id, int part) {
    const std::string& name = value_of(engine, id).name;
    const auto shard = plan.shards.find(name);
    return shard == plan.shards.end() ? given.at(name) : tensor::take(given.at(name), shard->second, part).contiguous();
  };
  for (int rank = 1; rank < plan.mesh().world_size(); ++rank) {
    const mesh::Coordinates at = plan.mesh().coordinates(rank);
    std::vector<c10::IValue> values;
    for (const ValueId id : engine.state_ids(at.pp)) {
      values.emplace_back(piece(id, at.tp));
    }
    send_bundle(engine.world(), values, rank, kStateTag);
  }
  for (const ValueId id : ids) {
    engine.set_state(id, piece(id, 0).clone());
  }
}

}  // namespace shardpipe::runtime
