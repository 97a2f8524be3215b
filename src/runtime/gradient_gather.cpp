#include "runtime/gradient_gather.h"

#include <map>

#include "base/error.h"
#include "runtime/bundle.h"

namespace shardpipe::runtime {
namespace {

using graph::ValueId;

// The parameters of a stage and how many uses each has there; then the gradients, use by use.
void send_gradients(const Engine& engine, int stage) {
  Json list = Json::array();
  std::vector<c10::IValue> values;
  for (const ParameterGradient& parameter : engine.parameter_gradients(stage)) {
    list.push_back({parameter.parameter, parameter.uses.size()});
    values.insert(values.end(), parameter.uses.begin(), parameter.uses.end());
  }
  send_bundle(engine.pipeline(), {bytes_of(list.dump())}, 0, kGradientTag);
  send_bundle(engine.pipeline(), values, 0, kGradientTag);
}

std::vector<ParameterGradient> receive_gradients(const Engine& engine, int rank) {
  const Json list = parse_json(
      text_of(receive_bundle(engine.pipeline(), 1, rank, kGradientTag)[0].value.toTensor()), "a stage's gradients");
  std::vector<ParameterGradient> gradients;
  size_t count = 0;
  for (const Json& entry : list) {
    gradients.push_back({entry.at(0).get<ValueId>(), std::vector<at::Tensor>(entry.at(1).get<size_t>())});
    count += gradients.back().uses.size();
  }
  const std::vector<Received> values = receive_bundle(engine.pipeline(), count, rank, kGradientTag);
  auto next = values.begin();
  for (ParameterGradient& parameter : gradients) {
    for (at::Tensor& use : parameter.uses) {
      use = next->value.isTensor() ? next->value.toTensor() : at::Tensor();
      ++next;
    }
  }
  return gradients;
}

}  // namespace

NamedTensors gather_gradients(const Engine& engine, const std::string& loss) {
  const plan::Plan& plan = engine.plan();
  std::map<ValueId, at::Tensor> totals;
  // Uses in later stages come first, as in the backward of the uncut graph.
  for (int stage = plan.num_stages() - 1; stage >= 0; --stage) {
    const int rank = plan.rank_of_stage(stage);
    if (engine.rank() != 0) {
      if (rank == engine.rank()) {
        send_gradients(engine, stage);
      }
      continue;
    }
    const std::vector<ParameterGradient> gradients =
        rank == 0 ? engine.parameter_gradients(stage) : receive_gradients(engine, rank);
    for (const ParameterGradient& parameter : gradients) {
      for (const at::Tensor& use : parameter.uses) {
        if (use.defined()) {
          at::Tensor& total = totals[parameter.parameter];
          total = total.defined() ? total + use : use;
        }
      }
    }
  }
  NamedTensors result;
  if (engine.rank() != 0) {
    return result;
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
