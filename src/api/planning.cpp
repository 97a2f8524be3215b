#include "api/planning.h"

#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "generate/lanes.h"
#include "graph/device.h"
#include "plan/profile.h"
#include "runtime/axis_group.h"

namespace shardpipe {

int num_cores() {
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

int threads_of_rank(int given, int local_ranks) {
  if (given < 0) {
    throw_usage("--threads is {}, must be at least 1", given);
  }
  return given > 0 ? given : std::max(1, num_cores() / local_ranks);
}

void connect(comm::World& world, const plan::Plan& plan) {
  const at::Device device = graph::find_device(plan.device, world.local_rank());
  if (!device.is_cpu()) {
    c10::impl::VirtualGuardImpl(device.type()).setDevice(device);  // libraries take memory of the current one
  }
  world.set_device(device);
  comm::RankPairs pairs;
  for (const auto& [from, to] : plan.stage_edges()) {
    pairs.emplace(plan.rank_of_stage(from), plan.rank_of_stage(to));
  }
  world.create_groups(plan.mesh(), pairs);
}

bool has_caches(const plan::Plan& plan) {
  const std::vector<graph::Value>& values = plan.graph.values;
  return std::any_of(values.begin(), values.end(), [](const graph::Value& value) {
    return value.kind == graph::ValueKind::state && value.state == graph::StateKind::per_sequence;
  });
}

plan::CostFunction cost_function(
    const runtime::TensorSource& tensors, const PlanOptions& options, const NamedTensors& example) {
  return [&tensors, &options, &example](const plan::Plan& plan) {
    generation::StepExample step;
    if (has_caches(plan)) {
      step = generation::step_example(plan.graph);
    }
    for (const auto& [name, tensor] : example) {
      step.inputs[name] = tensor;
    }
    if (!options.layout.profile) {
      return partition::cost_model(plan.graph, plan::dimensions_of(plan.graph, step.inputs, step.sizes));
    }
    at::set_num_threads(plan.threads);
    const runtime::Weights weights(plan, tensors);
    runtime::LonePart part(plan.layout.tp, plan.part);
    const tensor::AxisScope scope("tp", part);
    return plan::measure_costs(
               plan.graph, step.inputs, step.sizes, [&](const graph::Value& value) { return weights.load(value); })
        .costs;
  };
}

plan::Plan plan_for(const Model& model, const PlanOptions& options, const NamedTensors& example) {
  const runtime::TensorSource tensors = model.impl().tensors();
  return plan::make_plan(model.impl().describe(options.program), options, cost_function(tensors, options, example));
}

}  // namespace shardpipe
