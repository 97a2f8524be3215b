#include "runtime/verify.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/hash.h"
#include "graph/device.h"
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
  if (actual.toTensor().defined() != expected.toTensor().defined()) {
    return kNoNumber;
  }
  if (!actual.toTensor().defined()) {
    return 0;
  }
  const at::Tensor a = actual.toTensor().to(at::kCPU);
  const at::Tensor b = expected.toTensor().to(at::kCPU);
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
  Reference(
      const plan::Plan& plan,
      const std::vector<ValueId>& values,
      const NamedTensors& inputs,
      BatchRequest request,
      const Load& load,
      at::Device device)
      : plan_(plan),
        request_(std::move(request)),
        executor_(graph::on_device(plan.graph, device), values),
        inputs_(aligned_inputs(inputs)),
        device_(device) {
    for (const ValueId id : plan.graph.used_tensors()) {
      const graph::Value& value = plan.graph.values[static_cast<size_t>(id)];
      const at::Tensor tensor = load(value).to(device);
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
      executor_.set(id, to_device(graph::as_value(chunk, value.type), device_));
    }
    executor_.run();
  }

  const c10::IValue& get(ValueId id) const { return executor_.get(id); }
  void release() { executor_.release_results(); }

 private:
  const plan::Plan& plan_;
  BatchRequest request_;
  graph::Executor executor_;
  std::map<std::string, at::Tensor> inputs_;
  at::Device device_;
};

// The value of the uncut program that a value of the layout's is; kNoValue for pieces and sums of pieces.
ValueId whole_value(const plan::Plan& plan, ValueId id, const plan::Plan& whole) {
  if (plan.layout.tp == 1) {
    return id;
  }
  for (const graph::Output& output : plan.graph.outputs) {
    if (output.value == id) {
      const auto& outputs = whole.graph.outputs;
      return std::find_if(outputs.begin(), outputs.end(), [&](const auto& other) { return other.name == output.name; })
          ->value;
    }
  }
  const auto known = plan.whole_values.find(id);
  if (known == plan.whole_values.end()) {
    return graph::kNoValue;
  }
  // Chosen kernels may compute it within a larger operator.
  const bool there = std::any_of(whole.graph.nodes.begin(), whole.graph.nodes.end(), [&](const graph::Node& node) {
    return std::find(node.results.begin(), node.results.end(), known->second) != node.results.end();
  });
  return there ? known->second : graph::kNoValue;
}

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

at::Tensor perturbed(const at::Tensor& tensor, uint64_t seed) {
  if (!tensor.is_floating_point() || tensor.numel() == 0) {
    return tensor;
  }
  const auto eps = [](at::ScalarType type) {
    return type == at::kDouble     ? std::numeric_limits<double>::epsilon()
           : type == at::kFloat    ? double{std::numeric_limits<float>::epsilon()}
           : type == at::kBFloat16 ? double{std::numeric_limits<c10::BFloat16>::epsilon()}
                                   : double{std::numeric_limits<c10::Half>::epsilon()};
  };
  const at::ScalarType type = tensor.scalar_type();
  const auto wide = type == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t elements = tensor.dim() < 2 ? 1 : tensor.numel() / tensor.size(0);
  const auto length = static_cast<double>(elements);
  const double size = std::max(eps(type), std::sqrt(length) * eps(wide) / 2);
  at::Tensor factor = at::empty(tensor.sizes(), tensor.options().dtype(wide));
  factor.bernoulli_(0.5, at::make_generator<at::CPUGeneratorImpl>(seed)).mul_(2 * size).add_(1 - size);
  return factor.mul_(tensor.detach()).to(type);
}

std::vector<StageCheck> verify_batch(
    Engine& engine,
    const NamedTensors& inputs,
    const RunOptions& options,
    const InputCheck& check,
    const Uncut& uncut) {
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
  const bool divided = plan.layout.tp > 1;
  const plan::Plan& whole = divided ? *uncut.plan : plan;
  std::vector<std::vector<ValueId>> expected;  // by stage, for values_of
  std::vector<ValueId> kept;
  for (int stage = 0; stage < plan.num_stages(); ++stage) {
    checks.push_back({.stage = stage});
    std::vector<ValueId>& list = expected.emplace_back();
    for (const ValueId id : values_of(plan, stage)) {
      list.push_back(whole_value(plan, id, whole));
      if (list.back() != graph::kNoValue) {
        kept.push_back(list.back());
      }
    }
  }
  const Load load = uncut.load ? uncut.load : [&](const graph::Value& value) { return engine.load(value); };
  Reference reference(whole, kept, inputs, result.request, load, engine.device());
  std::optional<Reference> moved;
  if (divided) {
    moved.emplace(
        whole, kept, inputs, result.request,
        [&](const graph::Value& value) {
          const at::Tensor tensor = load(value).to(at::kCPU);
          return value.kind == graph::ValueKind::parameter ? perturbed(tensor, fnv1a(value.name)) : tensor;
        },
        engine.device());
  }
  std::vector<double> ratios(checks.size(), 0);  // largest difference to its bound, by stage
  for (int m = 0; m < result.request.microbatches(); ++m) {
    reference.run(m);
    if (moved) {
      moved->run(m);
    }
    for (StageCheck& stage : checks) {
      const std::vector<ValueId>& ids = expected[static_cast<size_t>(stage.stage)];
      const std::vector<c10::IValue>& values = computed.at({stage.stage, m});
      for (size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] == graph::kNoValue) {
          continue;
        }
        const c10::IValue& right = reference.get(ids[i]);
        const double found = difference(values[i], right);
        const double bound = moved ? kRoundings * difference(moved->get(ids[i]), right) : 0;
        ++stage.values;
        stage.differing += found > bound ? 1 : 0;
        const double ratio = found == 0 ? 0 : bound == 0 ? std::numeric_limits<double>::infinity() : found / bound;
        double& worst = ratios[static_cast<size_t>(stage.stage)];
        if (ratio > worst) {
          worst = ratio;
          stage.largest = found;
          stage.bound = bound;
          stage.worst = fmt::format("{}, microbatch {}", place_of(whole.graph, ids[i]), m);
        }
      }
    }
    reference.release();
    if (moved) {
      moved->release();
    }
  }
  return checks;
}

}  // namespace shardpipe::runtime
