#include "runtime/batch_run.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "runtime/scalar_join.h"
#include "schedule/builders.h"
#include "schedule/validate.h"

namespace shardpipe::runtime {
namespace {

using graph::ValueId;
using graph::ValueType;

// Tags behind those of the microbatches' messages, which are numbered from 0.
constexpr int kRequestTag = 1 << 23;
constexpr int kInputTag = kRequestTag + 1;
constexpr int kCountTag = kRequestTag + 2;
constexpr int kOutputTag = kRequestTag + 3;
constexpr int kGradientTag = kRequestTag + 4;
constexpr int64_t kMaxMicrobatches = 1 << 22;

at::Tensor bytes_of(const std::string& text) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), text.data(), text.size());
  return tensor;
}

std::string text_of(const at::Tensor& bytes) {
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<size_t>(bytes.numel())};
}

const graph::Graph& part(const Engine& engine, int stage) {
  return engine.plan().stages.graphs[static_cast<size_t>(stage)];
}

// Names of the model's inputs that a stage uses.
std::vector<std::string> stage_inputs(const Engine& engine, int stage) {
  std::vector<std::string> names;
  for (const ValueId id : part(engine, stage).inputs) {
    const graph::Value& value = engine.plan().graph.values[static_cast<size_t>(id)];
    if (value.kind == graph::ValueKind::input) {
      names.push_back(value.name);
    }
  }
  return names;
}

// Names of the model's outputs, and of the hidden ones, that a stage computes.
std::vector<std::string> stage_outputs(const Engine& engine, int stage) {
  std::vector<std::string> names;
  for (const graph::Output& output : part(engine, stage).outputs) {
    if (output.name != partition::edge_name(output.value)) {
      names.push_back(output.name);
    }
  }
  return names;
}

c10::IValue as_type(const at::Tensor& tensor, ValueType type) {
  switch (type) {
    case ValueType::integer:
      return tensor.item<int64_t>();
    case ValueType::number:
      return tensor.item<double>();
    case ValueType::boolean:
      return tensor.item<bool>();
    default:
      return tensor;
  }
}

at::Tensor as_tensor(const c10::IValue& value) {
  if (value.isTensor()) {
    return value.toTensor();
  }
  if (value.isBool()) {
    return at::scalar_tensor(value.toBool(), at::kBool);
  }
  return value.isInt() ? at::scalar_tensor(value.toInt(), at::kLong) : at::scalar_tensor(value.toDouble(), at::kDouble);
}

class Batch : public BatchDriver {
 public:
  Batch(Engine& engine, const NamedTensors& inputs, const RunOptions& options, const InputCheck& check)
      : engine_(engine), plan_(engine.plan()), pipeline_(engine.pipeline()) {
    const comm::ActionScope action(engine.monitor(), "inputs", {.from = first() ? -1 : pipeline_.ranks()[0]});
    if (first()) {
      distribute(inputs, options, check);
    } else {
      request_ = batch_request_from_json(
          parse_json(text_of(receive_bundle(pipeline_, 1, 0, kRequestTag)[0].value.toTensor()), "the batch of rank 0"));
      const std::vector<std::string> names = stage_inputs(engine, engine.stage());
      std::vector<Received> values = receive_bundle(pipeline_, names.size(), 0, kInputTag);
      for (size_t i = 0; i < names.size(); ++i) {
        inputs_[names[i]] = values[i].value.toTensor();
      }
    }
    for (const plan::ScalarOutput& scalar : plan_.scalars) {
      if (scalar.name == request_.loss && request_.microbatches() > 1) {
        loss_terms_ = scalar.terms;
      }
    }
  }

  BatchResult run() {
    const bool gradients = !request_.loss.empty();
    const int microbatches = request_.microbatches();
    const schedule::StageEdges edges = plan_.stage_edges();
    const schedule::Schedule lowered =
        schedule::lower(schedule::fill_drain(plan_.layout.pp, microbatches, gradients), edges);
    schedule::validate(lowered, edges);
    const std::vector<schedule::Action>& actions = lowered.ranks[static_cast<size_t>(engine_.stage())];
    const auto backwards = std::find_if(actions.begin(), actions.end(), [](const schedule::Action& action) {
      return action.kind == schedule::ActionKind::B || action.kind == schedule::ActionKind::RECV_B;
    });
    engine_.begin_batch(microbatches, gradients);
    BatchResult result;
    result.microbatches = microbatches;
    add(result.stats, engine_.run({actions.begin(), backwards}, *this));
    if (gradients) {
      find_weights();
      add(result.stats, engine_.run({backwards, actions.end()}, *this));
    }
    gather_outputs(result);
    if (gradients) {
      gather_gradients(result);
    }
    return result;
  }

  c10::IValue input(int microbatch, const std::string& name) override {
    const ValueId id = plan_.graph.find(name);
    const at::Tensor tensor = chunk_of(inputs_.at(name), request_.inputs.at(name), request_, microbatch);
    return as_type(tensor, plan_.graph.values[static_cast<size_t>(id)].type);
  }

  void outputs(int /*microbatch*/, const std::vector<std::pair<std::string, c10::IValue>>& values) override {
    for (const auto& [name, value] : values) {
      outputs_[name].push_back(as_tensor(value));
    }
  }

  bool differentiates(const std::string& output) const override {
    return output == request_.loss ||
           std::any_of(loss_terms_.begin(), loss_terms_.end(), [&](const auto& term) { return term.output == output; });
  }

  at::Tensor gradient(int microbatch, const std::string& output) override {
    const auto m = static_cast<size_t>(microbatch);
    if (loss_terms_.empty()) {
      return output == request_.loss ? ones_like_output(output, row_weights(request_.rows)[m]) : at::Tensor();
    }
    for (size_t i = 0; i < loss_terms_.size(); ++i) {
      const double weight = loss_terms_[i].output == output ? loss_terms_[i].coefficient * weights_[i][m] : 0;
      if (weight != 0) {
        return ones_like_output(output, weight);
      }
    }
    return {};
  }

 private:
  bool first() const { return engine_.stage() == 0; }

  static void add(StepStats& total, const StepStats& step) {
    total.compute_s += step.compute_s;
    total.wait_s += step.wait_s;
    total.bytes_sent += step.bytes_sent;
  }

  void distribute(const NamedTensors& inputs, const RunOptions& options, const InputCheck& check) {
    request_ = request_batch(plan_, inputs, options);
    if (request_.microbatches() > kMaxMicrobatches) {
      throw_usage("--chunks is {}, must be at most {}", request_.microbatches(), kMaxMicrobatches);
    }
    for (const int microbatch : {0, request_.microbatches() - 1}) {
      std::map<std::string, at::Tensor> checked;
      for (const auto& [name, tensor] : inputs) {
        checked[name] = chunk_of(tensor, request_.inputs.at(name), request_, microbatch);
      }
      if (check) {
        check(checked);
      }
    }
    for (const auto& [name, tensor] : inputs) {
      // A file's data may lie anywhere, and what kernels compute depends on it in the last bits.
      const bool aligned = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64 == 0;
      inputs_[name] = aligned ? tensor : tensor.clone();
    }
    for (int stage = 1; stage < pipeline_.size(); ++stage) {
      send_bundle(pipeline_, {bytes_of(to_json(request_).dump())}, stage, kRequestTag);
      std::vector<c10::IValue> values;
      for (const std::string& name : stage_inputs(engine_, stage)) {
        values.emplace_back(inputs_.at(name));
      }
      send_bundle(pipeline_, values, stage, kInputTag);
    }
  }

  at::Tensor ones_like_output(const std::string& output, double value) const {
    return at::full_like(outputs_.at(output).front(), value);
  }

  at::Tensor scalar_values(const std::string& name) const {
    std::vector<at::Tensor> values;
    for (const at::Tensor& value : outputs_.at(name)) {
      if (value.numel() != 1) {
        throw_usage("the output \"{}\" has shape {}, must have one element", name, c10::str(value.sizes()));
      }
      values.push_back(value.reshape({}).to(at::kDouble));
    }
    return at::stack(values);
  }

  // Every rank learns the weights of the loss's terms, from the counts of all microbatches wherever they are computed.
  void find_weights() {
    const auto own = outputs_.find(request_.loss);
    if (own != outputs_.end() && own->second.front().numel() != 1) {
      throw_usage(
          "the loss \"{}\" has shape {}, must have one element", request_.loss, c10::str(own->second.front().sizes()));
    }
    if (loss_terms_.empty()) {
      return;
    }
    const comm::ActionScope action(engine_.monitor(), "counts");
    std::set<std::string> counts;
    for (const plan::ScalarTerm& term : loss_terms_) {
      counts.insert(term.count);
    }
    const auto counts_of = [&](int stage) {
      std::vector<std::string> names = stage_outputs(engine_, stage);
      std::erase_if(names, [&](const std::string& name) { return counts.count(name) == 0; });
      return names;
    };
    ScalarValues values;
    std::vector<c10::IValue> sent;
    for (const std::string& name : counts_of(engine_.stage())) {
      values[name] = scalar_values(name);
      sent.emplace_back(values[name]);
    }
    // Everyone tells everyone: the counts are few numbers.
    for (int stage = 0; stage < pipeline_.size(); ++stage) {
      if (stage != engine_.stage()) {
        send_bundle(pipeline_, sent, stage, kCountTag);
      }
    }
    for (int stage = 0; stage < pipeline_.size(); ++stage) {
      if (stage != engine_.stage()) {
        const std::vector<std::string> names = counts_of(stage);
        const std::vector<Received> received = receive_bundle(pipeline_, names.size(), stage, kCountTag);
        for (size_t i = 0; i < names.size(); ++i) {
          values[names[i]] = received[i].value.toTensor();
        }
      }
    }
    for (const plan::ScalarTerm& term : loss_terms_) {
      weights_.push_back(term_weights(term, values, request_.rows.size()));
    }
  }

  at::Tensor joined(const std::string& name, const JoinRule& rule) const {
    const std::vector<at::Tensor>& values = outputs_.at(name);
    if (values.size() == 1) {
      return values.front();
    }
    at::Tensor total;
    switch (rule.merge.kind) {
      case MergeRule::Kind::last:
        return values.back();
      case MergeRule::Kind::cat:
        if (values.front().dim() <= rule.merge.dim) {
          throw Error(
              ErrorCode::usage,
              fmt::format(
                  "the output \"{}\" has shape {}: no dimension {} to concatenate", name,
                  c10::str(values.front().sizes()), rule.merge.dim),
              fmt::format("use --merge {}=sum, mean or last", name));
        }
        return at::cat(values, rule.merge.dim);
      case MergeRule::Kind::sum:
        total = values.front();
        for (size_t m = 1; m < values.size(); ++m) {
          total = total + values[m];
        }
        return total;
      case MergeRule::Kind::mean:
        for (size_t m = 0; m < values.size(); ++m) {
          const at::Tensor weighted = values[m] * row_weights(request_.rows)[m];
          total = total.defined() ? total + weighted : weighted;
        }
        return total;
    }
    return total;
  }

  void gather_outputs(BatchResult& result) {
    const int to = request_.outputs_on_last ? plan_.layout.pp - 1 : 0;
    const comm::ActionScope action(engine_.monitor(), "outputs");
    std::map<std::string, at::Tensor> whole;
    ScalarValues scalars;
    std::map<std::string, at::Tensor> examples;
    for (int stage = 0; stage < plan_.layout.pp; ++stage) {
      if (stage != engine_.stage() && to != engine_.stage()) {
        continue;
      }
      // A scalar's values, and one of them for dtype and shape; else the joined output.
      std::vector<std::string> names = stage_outputs(engine_, stage);
      std::vector<c10::IValue> values;
      if (stage == engine_.stage()) {
        for (const std::string& name : names) {
          const auto rule = request_.outputs.find(name);
          const bool scalar = rule == request_.outputs.end() || rule->second.scalar;
          values.emplace_back(scalar ? outputs_.at(name).front() : joined(name, rule->second));
          values.emplace_back(scalar ? scalar_values(name) : at::Tensor());
        }
        if (to != stage) {
          send_bundle(pipeline_, values, to, kOutputTag);
          continue;
        }
      } else {
        for (Received& received : receive_bundle(pipeline_, 2 * names.size(), stage, kOutputTag)) {
          values.push_back(std::move(received.value));
        }
      }
      for (size_t i = 0; i < names.size(); ++i) {
        whole[names[i]] = values[2 * i].toTensor();
        if (values[2 * i + 1].isTensor() && values[2 * i + 1].toTensor().defined()) {
          scalars[names[i]] = values[2 * i + 1].toTensor();
        }
      }
    }
    if (to != engine_.stage()) {
      return;
    }
    for (const graph::Output& output : plan_.graph.outputs) {
      if (plan::is_hidden_output(output.name)) {
        continue;
      }
      at::Tensor value = whole.at(output.name);
      if (request_.outputs.at(output.name).scalar && request_.microbatches() > 1) {
        const auto known = std::find_if(
            plan_.scalars.begin(), plan_.scalars.end(), [&](const auto& scalar) { return scalar.name == output.name; });
        const plan::ScalarOutput scalar = known == plan_.scalars.end() ? plan::ScalarOutput{output.name, {}} : *known;
        value = at::full_like(value, join_scalar(scalar, scalars, request_.rows));
      }
      result.outputs.emplace_back(output.name, std::move(value));
    }
  }

  void gather_gradients(BatchResult& result) {
    const comm::ActionScope action(engine_.monitor(), "gradients");
    std::vector<c10::IValue> own;
    for (const ParameterGradient& parameter : engine_.parameter_gradients()) {
      own.insert(own.end(), parameter.uses.begin(), parameter.uses.end());
    }
    if (!first()) {
      send_bundle(pipeline_, {bytes_of(gradient_list())}, 0, kGradientTag);
      send_bundle(pipeline_, own, 0, kGradientTag);
      return;
    }
    // Uses in later stages come first, as in the backward of the uncut graph.
    std::map<ValueId, at::Tensor> totals;
    const auto add = [&](ValueId id, const c10::IValue& gradient) {
      if (gradient.isTensor() && gradient.toTensor().defined()) {
        at::Tensor& total = totals[id];
        total = total.defined() ? total + gradient.toTensor() : gradient.toTensor();
      }
    };
    for (int stage = plan_.layout.pp - 1; stage > 0; --stage) {
      const Json list =
          parse_json(text_of(receive_bundle(pipeline_, 1, stage, kGradientTag)[0].value.toTensor()), "gradients");
      size_t count = 0;
      for (const Json& entry : list) {
        count += entry.at(1).get<size_t>();
      }
      const std::vector<Received> values = receive_bundle(pipeline_, count, stage, kGradientTag);
      auto next = values.begin();
      for (const Json& entry : list) {
        for (size_t use = 0; use < entry.at(1).get<size_t>(); ++use, ++next) {
          add(entry.at(0).get<ValueId>(), next->value);
        }
      }
    }
    auto next = own.begin();
    for (const ParameterGradient& parameter : engine_.parameter_gradients()) {
      for (size_t use = 0; use < parameter.uses.size(); ++use, ++next) {
        add(parameter.parameter, *next);
      }
    }
    if (totals.empty()) {
      throw_usage("the loss \"{}\" does not depend on any parameter", request_.loss);
    }
    for (const auto& [id, total] : totals) {
      const graph::Value& value = plan_.graph.values[static_cast<size_t>(id)];
      result.gradients.emplace_back(value.name, total);
      for (const std::string& tied : value.tied_names) {
        result.gradients.emplace_back(tied, total);
      }
    }
  }

  std::string gradient_list() const {
    Json list = Json::array();
    for (const ParameterGradient& parameter : engine_.parameter_gradients()) {
      list.push_back({parameter.parameter, parameter.uses.size()});
    }
    return list.dump();
  }

  Engine& engine_;
  const plan::Plan& plan_;
  const comm::Transport& pipeline_;
  BatchRequest request_;
  std::map<std::string, at::Tensor> inputs_;
  std::map<std::string, std::vector<at::Tensor>> outputs_;  // by microbatch
  std::vector<plan::ScalarTerm> loss_terms_;                // empty: the loss is the root of the backwards
  std::vector<std::vector<double>> weights_;                // by term and microbatch
};

}  // namespace

BatchResult run_batch(Engine& engine, const NamedTensors& inputs, const RunOptions& options, const InputCheck& check) {
  const c10::AutoGradMode no_grad(false);
  return Batch(engine, inputs, options, check).run();
}

}  // namespace shardpipe::runtime
