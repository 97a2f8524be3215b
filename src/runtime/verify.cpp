#include "runtime/verify.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <limits>
#include <set>

#include "base/error.h"
#include "graph/executor.h"
#include "runtime/bundle.h"

namespace shardpipe::runtime {
namespace {

using graph::ValueId;
using Load = std::function<at::Tensor(const graph::Value& value)>;

// What a stage computes that can be looked at: for other stages, then for the caller; as BatchDriver::computed has it.
std::vector<ValueId> values_of(const plan::Plan& plan, int stage) {
  std::set<ValueId> sent;
  for (const partition::Edge& edge : plan.stages.edges) {
    if (edge.from_stage == stage) {
      sent.insert(edge.value);
    }
  }
  std::vector<ValueId> values(sent.begin(), sent.end());
  for (const auto& [name, id] : plan.stage_outputs(stage)) {
    values.push_back(id);
  }
  return values;
}

// A copy: what follows may write in place.
c10::IValue copy_of(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined() ? c10::IValue(value.toTensor().detach().clone()) : value;
}

double number_of(const c10::IValue& value) {
  return value.isBool() ? value.toBool() : value.isInt() ? static_cast<double>(value.toInt()) : value.toDouble();
}

// 0 for equal values.
double difference(const c10::IValue& actual, const c10::IValue& expected) {
  constexpr double kNoNumber = std::numeric_limits<double>::infinity();
  if (!actual.isTensor() || !expected.isTensor()) {
    const bool numbers = actual.isScalar() && expected.isScalar();
    return numbers                                ? std::abs(number_of(actual) - number_of(expected))
           : actual.isNone() == expected.isNone() ? 0
                                                  : kNoNumber;
  }
  const at::Tensor a = actual.toTensor();
  const at::Tensor b = expected.toTensor();
  if (a.defined() != b.defined()) {
    return kNoNumber;
  }
  if (!a.defined()) {
    return 0;
  }
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) {
    return kNoNumber;
  }
  if (a.numel() == 0 || a.equal(b)) {
    return 0;
  }
  const auto type = a.is_complex() ? at::kComplexDouble : at::kDouble;
  const at::Tensor x = a.to(type);
  const at::Tensor y = b.to(type);
  const at::Tensor same = x.eq(y).logical_or(x.isnan().logical_and(y.isnan()));
  const double largest = (x - y).abs().masked_fill(same, 0).max().item<double>();
  return std::isnan(largest) ? kNoNumber : largest;
}

// Values by stage and microbatch: of the replica, and on rank 0 at last of the whole batch.
using Computed = std::map<std::pair<int, int>, std::vector<c10::IValue>>;

// Rank 0 gets what all stages computed.
void gather(const Engine& engine, const BatchRequest& request, Computed& computed) {
  const plan::Plan& plan = engine.plan();
  for (int replica = 0; replica < request.active_replicas(); ++replica) {
    for (int stage = 0; stage < plan.num_stages(); ++stage) {
      const int rank = engine.rank_at(plan.rank_of_stage(stage), replica, 0);
      for (int m = 0; m < request.by_replica[static_cast<size_t>(replica)] && rank != 0; ++m) {
        if (engine.at() == plan.mesh().coordinates(rank)) {
          send_bundle(engine.world(), computed.at({stage, m}), 0, kStageTag);
        } else if (engine.is_first()) {
          for (Received& received : receive_bundle(engine.world(), values_of(plan, stage).size(), rank, kStageTag)) {
            computed[{stage, request.first_of(replica) + m}].push_back(std::move(received.value));
          }
        }
      }
    }
  }
}

// The uncut program, with the microbatches' inputs as a batch has them.
class Reference {
 public:
  Reference(const plan::Plan& plan, const NamedTensors& inputs, BatchRequest request, const Load& load)
      : plan_(plan), request_(std::move(request)), executor_(plan.graph, kept(plan)), inputs_(aligned_inputs(inputs)) {
    for (const ValueId id : plan.graph.used_tensors()) {
      const graph::Value& value = plan.graph.values[static_cast<size_t>(id)];
      const at::Tensor tensor = load(value);
      if (value.kind == graph::ValueKind::state) {
        executor_.set(id, tensor.clone());
      } else {
        executor_.set(id, is_differentiable(plan, id, tensor) ? tensor.detach().requires_grad_() : tensor);
      }
    }
  }

  void run(int microbatch) {
    for (const ValueId id : plan_.graph.inputs) {
      const graph::Value& value = plan_.graph.values[static_cast<size_t>(id)];
      const at::Tensor chunk = chunk_of(inputs_.at(value.name), request_.inputs.at(value.name), request_, microbatch);
      executor_.set(id, graph::as_value(chunk, value.type));
    }
    executor_.run();
  }

  const c10::IValue& get(ValueId id) const { return executor_.get(id); }
  void release() { executor_.release_results(); }

 private:
  static std::vector<ValueId> kept(const plan::Plan& plan) {
    std::vector<ValueId> values;
    for (int stage = 0; stage < plan.num_stages(); ++stage) {
      const std::vector<ValueId> own = values_of(plan, stage);
      values.insert(values.end(), own.begin(), own.end());
    }
    return values;
  }

  const plan::Plan& plan_;
  BatchRequest request_;
  graph::Executor executor_;
  std::map<std::string, at::Tensor> inputs_;
};

std::string place_of(const graph::Graph& graph, ValueId id) {
  for (const graph::Output& output : graph.outputs) {
    if (output.value == id) {
      return "output \"" + output.name + "\"";
    }
  }
  for (const graph::Node& node : graph.nodes) {
    if (std::find(node.results.begin(), node.results.end(), id) != node.results.end()) {
      return fmt::format("%{} of {}", id, node.module.empty() ? node.op_name() : node.module);
    }
  }
  return fmt::format("%{}", id);
}

}  // namespace

std::vector<StageCheck> verify_batch(
    Engine& engine, const NamedTensors& inputs, const RunOptions& options, const InputCheck& check, const Load& load) {
  const plan::Plan& plan = engine.plan();
  const c10::AutoGradMode no_grad(false);
  Computed computed;
  const BatchResult result =
      run_batch(engine, inputs, options, check, [&](int stage, int microbatch, const StageValues& values) {
        std::vector<c10::IValue>& list = computed[{stage, microbatch}];
        for (const auto& [id, value] : values) {
          list.push_back(copy_of(value));
        }
      });
  const comm::ActionScope action(engine.monitor(), "verify");
  gather(engine, result.request, computed);
  std::vector<StageCheck> checks;
  if (!engine.is_first()) {
    return checks;
  }
  Reference reference(
      plan, inputs, result.request, load ? load : [&](const graph::Value& value) { return engine.load(value); });
  for (int stage = 0; stage < plan.num_stages(); ++stage) {
    checks.push_back({.stage = stage});
  }
  for (int m = 0; m < result.request.microbatches(); ++m) {
    reference.run(m);
    for (StageCheck& stage : checks) {
      const std::vector<ValueId> ids = values_of(plan, stage.stage);
      const std::vector<c10::IValue>& values = computed.at({stage.stage, m});
      for (size_t i = 0; i < ids.size(); ++i) {
        const double found = difference(values[i], reference.get(ids[i]));
        ++stage.values;
        stage.differing += found != 0 ? 1 : 0;
        if (found > stage.largest) {
          stage.largest = found;
          stage.worst = fmt::format("{}, microbatch {}", place_of(plan.graph, ids[i]), m);
        }
      }
    }
    reference.release();
  }
  return checks;
}

}  // namespace shardpipe::runtime
