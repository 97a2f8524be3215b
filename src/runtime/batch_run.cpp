#include "runtime/batch_run.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.h"
#include "runtime/gradient_gather.h"
#include "runtime/loss_counts.h"
#include "runtime/output_join.h"
#include "runtime/scalar_join.h"
#include "runtime/verify.h"
#include "schedule/select.h"
#include "schedule/validate.h"

namespace shardpipe::runtime {
namespace {

using graph::ValueId;

constexpr int kRequestTag = 0;
constexpr int kInputTag = 1;
constexpr int kCountTag = 2;
constexpr int kOutputTag = 3;
static_assert(kOutputTag < kGradientTag && kGradientTag < kStageTag && kStageTag < kFirstBatchTag);

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
  Batch(
      Engine& engine,
      const NamedTensors& inputs,
      const RunOptions& options,
      const InputCheck& check,
      const StageObserver& observer)
      : engine_(engine), plan_(engine.plan()), world_(engine.world()), replica_(engine.at().dp), observer_(observer) {
    const comm::ActionScope action(engine.monitor(), "inputs", {.from = engine.is_first() ? -1 : 0});
    if (engine.is_first()) {
      prepare(inputs, options, check);
      distribute();
    } else {
      request_ = batch_request_from_json(
          parse_json(text_of(receive_bundle(world_, 1, 0, kRequestTag)[0].value.toTensor()), "the batch of rank 0"));
      find_loss_terms();
      if (idle()) {
        return;
      }
      const std::vector<std::string> names = rank_inputs(engine_.rank());
      std::vector<Received> values = receive_bundle(world_, names.size(), 0, kInputTag);
      for (size_t i = 0; i < names.size(); ++i) {
        inputs_[names[i]] = values[i].value.toTensor();
      }
    }
    first_ = request_.first_of(replica_);
    if (request_.loss_weights) {
      weights_ = *request_.loss_weights;
    }
  }

  BatchResult run() {
    BatchResult result;
    result.microbatches = request_.by_replica.front();
    result.request = request_;
    if (idle()) {
      return result;
    }
    const bool gradients = !request_.loss.empty();
    const int microbatches = request_.by_replica[static_cast<size_t>(replica_)];
    const bool late = gradients && !request_.loss_weights;  // known after the forwards only
    schedule::Schedule step = plan_.schedule(microbatches, gradients);
    if (late) {
      step = schedule::forwards_first(step);
    }
    schedule::validate(step, plan_.stage_edges());
    const std::vector<schedule::Action>& actions = step.ranks[static_cast<size_t>(engine_.rank())];
    const auto backwards = late ? std::find_if(actions.begin(), actions.end(), schedule::is_backward) : actions.end();
    engine_.begin_batch(microbatches, gradients);
    add(result.stats, engine_.run({actions.begin(), backwards}, *this));
    if (late) {
      find_weights();
      add(result.stats, engine_.run({backwards, actions.end()}, *this));
    }
    gather_outputs(result);
    if (gradients) {
      const comm::ActionScope action(engine_.monitor(), "gradients");
      result.gradients = gather_gradients(engine_, request_.loss, request_.active_replicas());
    }
    return result;
  }

  c10::IValue input(int microbatch, const std::string& name) override {
    const ValueId id = plan_.graph.find(name);
    const at::Tensor tensor =
        chunk_of(inputs_.at(name), request_.inputs.at(name), request_, first_ + microbatch, first_);
    return graph::as_value(tensor, plan_.graph.values[static_cast<size_t>(id)].type);
  }

  void outputs(int /*microbatch*/, const std::vector<std::pair<std::string, c10::IValue>>& values) override {
    for (const auto& [name, value] : values) {
      outputs_[name].push_back(as_tensor(value));
    }
  }

  void computed(int stage, int microbatch, const StageValues& values) override {
    if (observer_) {
      observer_(stage, microbatch, values);
    }
  }

  bool differentiates(const std::string& output) const override {
    return output == request_.loss ||
           std::any_of(loss_terms_.begin(), loss_terms_.end(), [&](const auto& term) { return term.output == output; });
  }

  at::Tensor gradient(int microbatch, const std::string& output) override {
    const auto m = static_cast<size_t>(first_) + static_cast<size_t>(microbatch);
    if (loss_terms_.empty()) {
      if (output != request_.loss) {
        return {};
      }
      const at::Tensor& loss = outputs_.at(output).front();
      if (loss.numel() != 1) {
        throw_usage("the loss \"{}\" has shape {}, must have one element", output, c10::str(loss.sizes()));
      }
      return ones_like_output(output, row_weights(request_.rows)[m]);
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
  // Whether this rank's replica has no rows.
  bool idle() const { return request_.by_replica[static_cast<size_t>(replica_)] == 0; }

  // Names of the model's inputs that the stages of a rank use.
  std::vector<std::string> rank_inputs(int rank) const {
    std::set<std::string> names;
    for (const int stage : plan_.stages_of_rank(rank)) {
      for (const auto& [name, id] : plan_.stage_inputs(stage)) {
        names.insert(name);
      }
    }
    return {names.begin(), names.end()};
  }

  // Names of the model's outputs, and of the hidden ones, that the stages of a rank compute.
  std::vector<std::string> rank_outputs(int rank) const {
    std::vector<std::string> names;
    for (const int stage : plan_.stages_of_rank(rank)) {
      for (const auto& [name, id] : plan_.stage_outputs(stage)) {
        names.push_back(name);
      }
    }
    return names;
  }

  static void add(StepStats& total, const StepStats& step) {
    total.compute_s += step.compute_s;
    total.reduce_s += step.reduce_s;
    total.wait_s += step.wait_s;
    total.bytes_sent += step.bytes_sent;
  }

  // Of rank 0: the request and its own inputs.
  void prepare(const NamedTensors& inputs, const RunOptions& options, const InputCheck& check) {
    request_ = check_batch(plan_, inputs, options, check);
    inputs_ = aligned_inputs(inputs);
    find_loss_terms();
    count_ahead();
  }

  void find_loss_terms() {
    for (const plan::ScalarOutput& scalar : plan_.scalars) {
      if (scalar.name == request_.loss && request_.microbatches() > 1) {
        loss_terms_ = scalar.terms;
      }
    }
  }

  // The weights of the loss's terms, where they follow from the inputs.
  void count_ahead() {
    if (loss_terms_.empty()) {
      request_.loss_weights.emplace();  // none to know
      return;
    }
    const std::optional<LossCounts> program = LossCounts::find(plan_, loss_terms_);
    const std::optional<ScalarValues> counts =
        program ? program->compute(
                      request_.microbatches(),
                      [&](int microbatch, const std::string& name) {
                        return chunk_of(inputs_.at(name), request_.inputs.at(name), request_, microbatch)
                            .to(engine_.device());
                      },
                      [&](const graph::Value& value) { return engine_.load(value); })
                : std::nullopt;
    if (counts) {
      set_weights(*counts);
      request_.loss_weights = weights_;
    }
  }

  void set_weights(const ScalarValues& counts) {
    for (const plan::ScalarTerm& term : loss_terms_) {
      weights_.push_back(term_weights(term, counts, request_.rows.size()));
    }
  }

  void distribute() {
    for (int rank = 1; rank < world_.size(); ++rank) {
      const mesh::Coordinates at = plan_.mesh().coordinates(rank);
      send_bundle(world_, {bytes_of(to_json(request_).dump())}, rank, kRequestTag);
      if (request_.by_replica[static_cast<size_t>(at.dp)] == 0) {
        continue;
      }
      std::vector<c10::IValue> values;
      for (const std::string& name : rank_inputs(at.pp)) {
        values.emplace_back(replica_part(inputs_.at(name), request_.inputs.at(name), request_, at.dp));
      }
      send_bundle(world_, values, rank, kInputTag);
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

  // Every rank learns the weights of the loss's terms, from the counts that the forwards left wherever they ran. They
  // are the same in all parts of tp: each has them from its own.
  void find_weights() {
    const comm::ActionScope action(engine_.monitor(), "counts");
    std::set<std::string> counts;
    for (const plan::ScalarTerm& term : loss_terms_) {
      counts.insert(term.count);
    }
    const auto counts_of = [&](int rank) {
      std::vector<std::string> names = rank_outputs(rank);
      std::erase_if(names, [&](const std::string& name) { return counts.count(name) == 0; });
      return names;
    };
    std::vector<c10::IValue> own;
    for (const std::string& name : counts_of(engine_.rank())) {
      own.emplace_back(scalar_values(name));
    }
    // Everyone tells everyone: the counts are few numbers.
    const std::vector<mesh::Coordinates> ranks = active_ranks(engine_.at().tp);
    for (const mesh::Coordinates& at : ranks) {
      if (at != engine_.at()) {
        send_bundle(world_, own, plan_.mesh().rank(at), kCountTag);
      }
    }
    std::map<std::string, std::vector<at::Tensor>> by_replica;
    for (const mesh::Coordinates& at : ranks) {
      const std::vector<std::string> names = counts_of(at.pp);
      std::vector<c10::IValue> values = own;
      if (at != engine_.at()) {
        values.clear();
        for (Received& received : receive_bundle(world_, names.size(), plan_.mesh().rank(at), kCountTag)) {
          values.push_back(std::move(received.value));
        }
      }
      for (size_t i = 0; i < names.size(); ++i) {
        by_replica[names[i]].push_back(values[i].toTensor());
      }
    }
    ScalarValues values;
    for (const auto& [name, list] : by_replica) {
      values[name] = at::cat(list);
    }
    set_weights(values);
  }

  // Ranks of one part of tp that have rows, replica after replica.
  std::vector<mesh::Coordinates> active_ranks(int part) const {
    std::vector<mesh::Coordinates> ranks;
    for (int replica = 0; replica < request_.active_replicas(); ++replica) {
      for (int rank = 0; rank < plan_.layout.pp; ++rank) {
        ranks.push_back({rank, replica, part});
      }
    }
    return ranks;
  }

  // What this rank tells of its outputs, two values each: a scalar's values, and one of them for dtype and shape; else
  // the joined output.
  std::vector<c10::IValue> own_outputs() const {
    std::vector<c10::IValue> values;
    for (const std::string& name : rank_outputs(engine_.rank())) {
      const auto rule = request_.outputs.find(name);
      const bool scalar = rule == request_.outputs.end() || rule->second.scalar;
      values.emplace_back(
          scalar ? outputs_.at(name).front()
                 : join_output(name, rule->second.merge, outputs_.at(name), request_.rows_of(replica_)));
      values.emplace_back(scalar ? scalar_values(name) : at::Tensor());
    }
    return values;
  }

  // Outputs are the same in all parts of tp: the first one's count.
  void gather_outputs(BatchResult& result) {
    const int to =
        plan_.mesh().rank({request_.outputs_on_last ? plan_.rank_of_stage(plan_.num_stages() - 1) : 0, 0, 0});
    const int self = plan_.mesh().rank(engine_.at());
    const comm::ActionScope action(engine_.monitor(), "outputs");
    if (to != self) {
      if (engine_.at().tp == 0) {
        send_bundle(world_, own_outputs(), to, kOutputTag);
      }
      return;
    }
    std::map<std::string, std::vector<at::Tensor>> parts;  // by replica
    std::map<std::string, std::vector<at::Tensor>> scalar_parts;
    for (const mesh::Coordinates& at : active_ranks(0)) {
      const std::vector<std::string> names = rank_outputs(at.pp);
      std::vector<c10::IValue> values;
      if (at == engine_.at()) {
        values = own_outputs();
      } else {
        for (Received& received : receive_bundle(world_, 2 * names.size(), plan_.mesh().rank(at), kOutputTag)) {
          values.push_back(std::move(received.value));
        }
      }
      for (size_t i = 0; i < names.size(); ++i) {
        parts[names[i]].push_back(values[2 * i].toTensor());
        if (values[2 * i + 1].isTensor() && values[2 * i + 1].toTensor().defined()) {
          scalar_parts[names[i]].push_back(values[2 * i + 1].toTensor());
        }
      }
    }
    ScalarValues scalars;
    for (const auto& [name, list] : scalar_parts) {
      scalars[name] = at::cat(list);
    }
    join_outputs(parts, scalars, result);
  }

  void join_outputs(
      const std::map<std::string, std::vector<at::Tensor>>& parts, const ScalarValues& scalars, BatchResult& result) {
    std::vector<int64_t> rows;  // by replica
    for (int replica = 0; replica < request_.active_replicas(); ++replica) {
      const std::vector<int64_t> own = request_.rows_of(replica);
      rows.push_back(std::accumulate(own.begin(), own.end(), int64_t{0}));
    }
    for (const graph::Output& output : plan_.graph.outputs) {
      if (plan::is_hidden_output(output.name)) {
        continue;
      }
      const JoinRule& rule = request_.outputs.at(output.name);
      const std::vector<at::Tensor>& list = parts.at(output.name);
      if (!rule.scalar) {
        result.outputs.emplace_back(output.name, join_output(output.name, rule.merge, list, rows));
        continue;
      }
      at::Tensor value = list.front();
      if (request_.microbatches() > 1) {
        const auto known = std::find_if(
            plan_.scalars.begin(), plan_.scalars.end(), [&](const auto& scalar) { return scalar.name == output.name; });
        const plan::ScalarOutput scalar = known == plan_.scalars.end() ? plan::ScalarOutput{output.name, {}} : *known;
        value = at::full_like(value, join_scalar(scalar, scalars, request_.rows));
      }
      result.outputs.emplace_back(output.name, std::move(value));
    }
  }

  Engine& engine_;
  const plan::Plan& plan_;
  const comm::Transport& world_;
  int replica_;
  int first_ = 0;  // microbatch of the list that is this replica's first
  const StageObserver& observer_;
  BatchRequest request_;
  std::map<std::string, at::Tensor> inputs_;
  std::map<std::string, std::vector<at::Tensor>> outputs_;  // by microbatch
  std::vector<plan::ScalarTerm> loss_terms_;                // empty: the loss is the root of the backwards
  std::vector<std::vector<double>> weights_;                // by term and microbatch
};

}  // namespace

BatchRequest check_batch(
    const plan::Plan& plan, const NamedTensors& inputs, const RunOptions& options, const InputCheck& check) {
  BatchRequest request = request_batch(plan, inputs, options);
  const auto pairs = std::max(1, static_cast<int>(plan.stage_edges().size()));
  const int most = (comm::Transport::kMaxTag - kFirstBatchTag) / (2 * pairs);
  const int own = request.by_replica.front();  // no other replica has more
  if (own > most) {
    throw_usage("--chunks is {}, must be at most {} with these cuts", own, most);
  }
  for (const int microbatches : std::set<int>(request.by_replica.begin(), request.by_replica.end())) {
    if (microbatches > 0) {
      plan.schedule(microbatches, !options.loss.empty());  // refuses numbers that the schedule cannot have
    }
  }
  for (const int microbatch : {0, request.microbatches() - 1}) {
    std::map<std::string, at::Tensor> checked;
    for (const auto& [name, tensor] : inputs) {
      checked[name] = chunk_of(tensor, request.inputs.at(name), request, microbatch);
    }
    if (check) {
      check(checked);
    }
  }
  return request;
}

BatchResult run_batch(
    Engine& engine,
    const NamedTensors& inputs,
    const RunOptions& options,
    const InputCheck& check,
    const StageObserver& observer) {
  const c10::AutoGradMode no_grad(false);
  return Batch(engine, inputs, options, check, observer).run();
}

}  // namespace shardpipe::runtime
