#include "runtime/gradient_gather.h"

#include <map>

#include "base/error.h"
#include "runtime/bundle.h"

namespace shardpipe::runtime {
namespace {

using graph::ValueId;

// Gradients by parameter: for a sharded one of this rank's piece.
using Gradients = std::map<ValueId, at::Tensor>;

bool is_sharded(const plan::Plan& plan, ValueId id) {
  return plan.shards.contains(plan.graph.values[static_cast<size_t>(id)].name);
}

// What a rank brings: gradients of replicated parameters are the same on all ranks of tp, the first one's count.
std::vector<ParameterGradient> own_gradients(const Engine& engine, int stage) {
  std::vector<ParameterGradient> gradients = engine.parameter_gradients(stage);
  if (engine.at().tp > 0) {
    std::erase_if(
        gradients, [&](const ParameterGradient& parameter) { return !is_sharded(engine.plan(), parameter.parameter); });
  }
  return gradients;
}

// The parameters of a stage and how many uses each has there; then the gradients, use by use.
void send_gradients(const Engine& engine, int stage) {
  Json list = Json::array();
  std::vector<c10::IValue> values;
  for (const ParameterGradient& parameter : own_gradients(engine, stage)) {
    list.push_back({parameter.parameter, parameter.uses.size()});
    values.insert(values.end(), parameter.uses.begin(), parameter.uses.end());
  }
  send_bundle(engine.world(), {bytes_of(list.dump())}, 0, kGradientTag);
  send_bundle(engine.world(), values, 0, kGradientTag);
}

std::vector<ParameterGradient> receive_gradients(const Engine& engine, int rank) {
  const Json list = parse_json(
      text_of(receive_bundle(engine.world(), 1, rank, kGradientTag)[0].value.toTensor()), "a stage's gradients");
  std::vector<ParameterGradient> gradients;
  size_t count = 0;
  for (const Json& entry : list) {
    gradients.push_back({entry.at(0).get<ValueId>(), std::vector<at::Tensor>(entry.at(1).get<size_t>())});
    count += gradients.back().uses.size();
  }
  const std::vector<Received> values = receive_bundle(engine.world(), count, rank, kGradientTag);
  auto next = values.begin();
  for (ParameterGradient& parameter : gradients) {
    for (at::Tensor& use : parameter.uses) {
      use = next->value.isTensor() ? next->value.toTensor() : at::Tensor();
      ++next;
    }
  }
  return gradients;
}

void add(Gradients& totals, ValueId id, const at::Tensor& gradient) {
  at::Tensor& total = totals[id];
  total = total.defined() ? total + gradient : gradient;
}

// Rank 0: those of one replica and one part of tp. Uses in later stages come first, as in the backward of the uncut
// graph.
Gradients collect(const Engine& engine, int replica, int part) {
  const plan::Plan& plan = engine.plan();
  Gradients totals;
  for (int stage = plan.num_stages() - 1; stage >= 0; --stage) {
    const int rank = engine.rank_at(plan.rank_of_stage(stage), replica, part);
    for (const ParameterGradient& parameter :
         rank == 0 ? own_gradients(engine, stage) : receive_gradients(engine, rank)) {
      for (const at::Tensor& use : parameter.uses) {
        if (use.defined()) {
          add(totals, parameter.parameter, use.to(at::kCPU));
        }
      }
    }
  }
  return totals;
}

// Rank 0: those of a replica, sharded ones joined.
Gradients collect(const Engine& engine, int replica) {
  const plan::Plan& plan = engine.plan();
  std::vector<Gradients> parts;
  for (int part = 0; part < plan.layout.tp; ++part) {
    parts.push_back(collect(engine, replica, part));
  }
  Gradients whole = std::move(parts.front());
  for (auto& [id, gradient] : whole) {
    const auto shard = plan.shards.find(plan.graph.values[static_cast<size_t>(id)].name);
    if (shard != plan.shards.end()) {
      std::vector<at::Tensor> pieces = {gradient};
      for (size_t part = 1; part < parts.size(); ++part) {
        pieces.push_back(parts[part].at(id));
      }
      gradient = tensor::join(pieces, shard->second);
    }
  }
  return whole;
}

}  // namespace

NamedTensors gather_gradients(const Engine& engine, const std::string& loss, int replicas) {
  const plan::Plan& plan = engine.plan();
  NamedTensors result;
  if (!engine.is_first()) {
    for (int stage = plan.num_stages() - 1; stage >= 0 && engine.at().dp < replicas; --stage) {
      if (plan.rank_of_stage(stage) == engine.rank()) {
        send_gradients(engine, stage);
      }
    }
    return result;
  }
  Gradients totals;
  for (int replica = 0; replica < replicas; ++replica) {
    for (const auto& [id, gradient] : collect(engine, replica)) {
      add(totals, id, gradient);
    }
  }
  if (totals.empty()) {
    throw_usage("the loss \"{}\" does not depend on any parameter", loss);
  }
  for (const auto& [id, total] : totals) {
    const graph::Value& value = plan.graph.values[static_cast<size_t>(id)];
    result.emplace_back(value.name, total);
    for (const std::string& tied : value.tied_names) {
      result.emplace_back(tied, total);
    }
  }
  return result;
}

}  // namespace shardpipe::runtime
