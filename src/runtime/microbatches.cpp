#include "runtime/microbatches.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/text.h"

namespace shardpipe::runtime {
namespace {

using graph::Value;
using graph::ValueType;

std::vector<std::string> input_names(const graph::Graph& graph) {
  std::vector<std::string> names;
  for (const graph::ValueId id : graph.inputs) {
    names.push_back(graph.values[static_cast<size_t>(id)].name);
  }
  return names;
}

std::vector<std::string> output_names(const graph::Graph& graph) {
  std::vector<std::string> names;
  for (const graph::Output& output : graph.outputs) {
    if (!plan::is_hidden_output(output.name)) {
      names.push_back(output.name);
    }
  }
  return names;
}

void check_known(const char* what, const std::string& name, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    throw Error(
        ErrorCode::usage, fmt::format("the model has no {} \"{}\": it has {}", what, name, fmt::join(known, ", ")),
        known.empty() ? "" : fmt::format("the nearest is {}", checkpoint::nearest_names(name, known, 1).front()));
  }
}

// Coefficient of a shape's extent k x batch; 0 when it is none.
int64_t multiple_of(const graph::Size& size, const std::string& batch) {
  const auto& terms = size.terms();
  return terms.size() == 1 && terms.begin()->first == std::vector<std::string>{batch} ? terms.begin()->second : 0;
}

bool contains(const graph::Size& size, const std::string& batch) {
  const std::vector<std::string> symbols = size.symbols();
  return std::find(symbols.begin(), symbols.end(), batch) != symbols.end();
}

ChunkRule default_rule(const Value& value, const std::string& batch) {
  if (value.type != ValueType::tensor || (value.shape && value.shape->empty())) {
    return {};
  }
  if (!batch.empty() && value.shape) {
    for (size_t d = 0; d < value.shape->size(); ++d) {
      if (const int64_t multiple = multiple_of((*value.shape)[d], batch); multiple > 0) {
        return {static_cast<int64_t>(d), multiple};
      }
    }
    return {};
  }
  return {0, 1};
}

ChunkRule given_rule(const std::string& name, const Value& value, const std::string& batch, std::optional<int> dim) {
  if (!dim) {
    return {};
  }
  if (value.type != ValueType::tensor || (value.shape && (*dim < 0 || *dim >= std::ssize(*value.shape)))) {
    throw_usage(
        "the input \"{}\" has no dimension {} to cut: it has {}", name, *dim,
        value.type != ValueType::tensor ? "none" : fmt::format("{}", value.shape->size()));
  }
  const int64_t multiple =
      value.shape && !batch.empty() ? multiple_of((*value.shape)[static_cast<size_t>(*dim)], batch) : 0;
  return {*dim, std::max<int64_t>(multiple, 1)};
}

JoinRule default_join(const plan::Plan& plan, const graph::Output& output, const std::string& batch) {
  const Value& value = plan.graph.values[static_cast<size_t>(output.value)];
  JoinRule rule;
  rule.merge.kind = MergeRule::Kind::last;
  const bool scalar = std::any_of(
      plan.scalars.begin(), plan.scalars.end(), [&](const auto& known) { return known.name == output.name; });
  if (scalar && (!batch.empty() || value.shape->empty())) {
    rule.scalar = true;
  } else if (value.type == ValueType::tensor && !(value.shape && value.shape->empty())) {
    if (batch.empty() || !value.shape) {
      rule.merge.kind = MergeRule::Kind::cat;
    }
    for (size_t d = 0; value.shape && d < value.shape->size(); ++d) {
      if (!batch.empty() && contains((*value.shape)[d], batch)) {
        rule.merge = {MergeRule::Kind::cat, static_cast<int>(d)};
        break;
      }
    }
  }
  return rule;
}

const at::Tensor& tensor_of(const NamedTensors& inputs, const std::string& name) {
  return std::find_if(inputs.begin(), inputs.end(), [&](const auto& input) { return input.first == name; })->second;
}

void check_inputs(const graph::Graph& graph, const NamedTensors& inputs) {
  const std::vector<std::string> names = input_names(graph);
  std::set<std::string> given;
  for (const auto& [name, tensor] : inputs) {
    check_known("input", name, names);
    if (!given.insert(name).second) {
      throw_usage("the input \"{}\" is given twice", name);
    }
  }
  for (const graph::ValueId id : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    if (given.count(value.name) == 0) {
      throw_usage("the input \"{}\" is missing: the model takes {}", value.name, fmt::join(names, ", "));
    }
    const at::Tensor& tensor = tensor_of(inputs, value.name);
    if (!tensor.defined()) {
      throw_usage("the input \"{}\" is an undefined tensor", value.name);
    }
    if (value.type != ValueType::tensor) {
      if (tensor.numel() != 1) {
        throw_usage("the input \"{}\" is a number, the tensor given has {} elements", value.name, tensor.numel());
      }
      continue;
    }
    if (value.dtype && tensor.scalar_type() != *value.dtype) {
      throw_usage(
          "the input \"{}\" is {}, the model takes {}", value.name, graph::dtype_name(tensor.scalar_type()),
          graph::dtype_name(*value.dtype));
    }
    if (value.shape && tensor.dim() != std::ssize(*value.shape)) {
      throw_usage(
          "the input \"{}\" has shape {}, the model takes {}", value.name, c10::str(tensor.sizes()),
          graph::to_string(*value.shape));
    }
  }
}

// Items in the batch, on which all inputs that are cut agree; nullopt when none is cut.
std::optional<int64_t> count_rows(const BatchRequest& request, const NamedTensors& inputs) {
  std::optional<int64_t> rows;
  std::string first;
  for (const auto& [name, tensor] : inputs) {
    const ChunkRule& rule = request.inputs.at(name);
    if (!rule.dim) {
      continue;
    }
    if (*rule.dim >= tensor.dim()) {
      throw_usage("the input \"{}\" has shape {}: no dimension {} to cut", name, c10::str(tensor.sizes()), *rule.dim);
    }
    const int64_t extent = tensor.size(*rule.dim);
    if (extent % rule.rows_per_item != 0 || (rows && extent / rule.rows_per_item != *rows)) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "the batch is {} in the input \"{}\" and {} in \"{}\" (dimension {})", rows.value_or(0), first,
              extent / rule.rows_per_item, name, *rule.dim),
          fmt::format("give all inputs as many rows, or replicate one: --chunk {}=replicate", name));
    }
    rows = extent / rule.rows_per_item;
    first = first.empty() ? name : first;
  }
  return rows;
}

bool writes_states(const graph::Graph& graph) {
  return std::any_of(graph.values.begin(), graph.values.end(), [](const Value& value) {
    return value.kind == graph::ValueKind::state;
  });
}

// Fills `rows` and `by_replica`.
void divide(const plan::Plan& plan, const NamedTensors& inputs, int asked, BatchRequest& request) {
  const std::optional<int64_t> rows = count_rows(request, inputs);
  // A program with fixed shapes takes the batch that it was made for; statistics are those of the whole batch.
  const bool states = writes_states(plan.graph);
  const bool whole = asked == 0 && (batch_dimension(plan.graph).empty() || states);
  const int replicas = plan.layout.dp;
  const bool one_replica = whole || states || !rows;
  if (replicas > 1 && one_replica) {
    log_warning(
        "the batch is not cut over --dp {} replicas, only the first runs: {}", replicas,
        states ? "the model writes to its state" : "the program has no dimension that is the batch");
  }
  const std::vector<int64_t> shares =
      one_replica ? std::vector<int64_t>{rows.value_or(1)} : split_rows(*rows, replicas);
  const int64_t most = std::max<int64_t>(shares.front(), 1);
  if (asked > most) {
    log_warning("--chunks {} lowered to {}: the batch has no more rows", asked, most);
  }
  const int64_t wanted = whole ? 1 : asked > 0 ? asked : plan.default_microbatches();
  request.by_replica.assign(static_cast<size_t>(replicas), 0);
  for (size_t replica = 0; replica < shares.size(); ++replica) {
    if (replica > 0 && shares[replica] == 0) {
      break;
    }
    const auto chunks = static_cast<int>(std::clamp<int64_t>(shares[replica], 1, wanted));
    request.by_replica[replica] = chunks;
    for (const int64_t part : split_rows(shares[replica], chunks)) {
      request.rows.push_back(part);
    }
  }
}

// The extents of one microbatch's inputs are those that the program was made for.
void check_extents(const graph::Graph& graph, const BatchRequest& request, const NamedTensors& inputs, int microbatch) {
  graph::Dimensions dimensions;
  std::map<std::string, std::string> first;  // input that a named dimension's extent is from
  for (const bool bind : {true, false}) {
    for (const graph::ValueId id : graph.inputs) {
      const Value& value = graph.values[static_cast<size_t>(id)];
      if (value.type != ValueType::tensor || !value.shape) {
        continue;
      }
      const at::Tensor part =
          chunk_of(tensor_of(inputs, value.name), request.inputs.at(value.name), request, microbatch);
      for (size_t d = 0; d < value.shape->size(); ++d) {
        const graph::Size& size = (*value.shape)[d];
        const std::vector<std::string> symbols = size.symbols();
        const int64_t extent = part.size(static_cast<int64_t>(d));
        if (symbols.size() == 1 && multiple_of(size, symbols[0]) == 1 &&
            dimensions.try_emplace(symbols[0], extent).second) {
          first[symbols[0]] = value.name;
        }
        const bool known = std::all_of(
            symbols.begin(), symbols.end(), [&](const std::string& symbol) { return dimensions.count(symbol) > 0; });
        if (bind || !known || size.evaluate(dimensions) == extent) {
          continue;
        }
        const bool cut = request.microbatches() > 1;
        throw Error(
            ErrorCode::usage,
            fmt::format(
                "the input \"{}\" has shape {}{}, the model takes {}{}", value.name, c10::str(part.sizes()),
                cut ? fmt::format(" in microbatch {}", microbatch) : "", graph::to_string(*value.shape),
                symbols.empty()
                    ? ""
                    : fmt::format(
                          ", and {} is {} in \"{}\"", symbols[0], dimensions.at(symbols[0]), first[symbols[0]])),
            cut ? "use --chunks 1, or a program with a dynamic batch dimension" : "");
      }
    }
  }
}

// Items of the microbatches from `first` to before `end`.
int64_t rows_between(const BatchRequest& request, int first, int end) {
  return std::accumulate(request.rows.begin() + first, request.rows.begin() + end, int64_t{0});
}

void warn_of_scalars(const plan::Plan& plan, const BatchRequest& request) {
  for (const plan::ScalarOutput& scalar : plan.scalars) {
    const auto rule = request.outputs.find(scalar.name);
    if (rule != request.outputs.end() && rule->second.scalar && scalar.terms.empty()) {
      log_warning(
          "output \"{}\" is no mean or sum that can be recognised: the {} microbatches' values are averaged by rows",
          scalar.name, request.microbatches());
    }
  }
}

}  // namespace

std::string batch_dimension(const graph::Graph& graph) {
  for (const graph::ValueId id : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    if (value.type != ValueType::tensor || !value.shape || value.shape->empty()) {
      continue;
    }
    for (const std::string& symbol : value.shape->front().symbols()) {
      if (multiple_of(value.shape->front(), symbol) == 1) {
        return symbol;
      }
    }
  }
  return "";
}

std::vector<int64_t> split_rows(int64_t rows, int chunks) {
  std::vector<int64_t> split(static_cast<size_t>(chunks), rows / chunks);
  for (int64_t i = 0; i < rows % chunks; ++i) {
    ++split[static_cast<size_t>(i)];
  }
  return split;
}

BatchRequest request_batch(const plan::Plan& plan, const NamedTensors& inputs, const RunOptions& options) {
  const graph::Graph& graph = plan.graph;
  check_inputs(graph, inputs);
  for (const auto& [name, dim] : options.chunk) {
    check_known("input", name, input_names(graph));
  }
  for (const auto& [name, rule] : options.merge) {
    check_known("output", name, output_names(graph));
  }
  BatchRequest request;
  request.outputs_on_last = options.outputs_on_last;
  request.loss = options.loss;
  const std::string batch = batch_dimension(graph);
  for (const graph::ValueId id : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    const auto given = options.chunk.find(value.name);
    request.inputs[value.name] =
        given == options.chunk.end() ? default_rule(value, batch) : given_rule(value.name, value, batch, given->second);
    if (given == options.chunk.end() && tensor_of(inputs, value.name).dim() == 0) {
      request.inputs[value.name] = {};
    }
  }
  for (const graph::Output& output : graph.outputs) {
    if (plan::is_hidden_output(output.name)) {
      continue;
    }
    const auto given = options.merge.find(output.name);
    request.outputs[output.name] =
        given == options.merge.end() ? default_join(plan, output, batch) : JoinRule{false, given->second};
  }
  if (!options.loss.empty()) {
    check_known("output", options.loss, output_names(graph));
    const bool scalar = std::any_of(
        plan.scalars.begin(), plan.scalars.end(), [&](const auto& known) { return known.name == options.loss; });
    const auto output = std::find_if(
        graph.outputs.begin(), graph.outputs.end(), [&](const auto& known) { return known.name == options.loss; });
    const Value& value = graph.values[static_cast<size_t>(output->value)];
    if (!scalar && (value.type != ValueType::tensor || value.shape)) {
      throw_usage(
          "the loss \"{}\" is {}{}, must be a floating-point tensor of one element", options.loss,
          value.dtype ? graph::dtype_name(*value.dtype) : "no tensor",
          value.shape ? graph::to_string(*value.shape) : "");
    }
    request.outputs[options.loss] = {true, {}};
  }
  divide(plan, inputs, options.chunks > 0 ? options.chunks : plan.layout.chunks, request);
  check_extents(graph, request, inputs, 0);
  check_extents(graph, request, inputs, request.microbatches() - 1);
  if (request.microbatches() > 1) {
    warn_of_scalars(plan, request);
  }
  return request;
}

int BatchRequest::active_replicas() const {
  return static_cast<int>(
      std::count_if(by_replica.begin(), by_replica.end(), [](int microbatches) { return microbatches > 0; }));
}

int BatchRequest::first_of(int replica) const {
  return std::accumulate(by_replica.begin(), by_replica.begin() + replica, 0);
}

std::vector<int64_t> BatchRequest::rows_of(int replica) const {
  const auto first = rows.begin() + first_of(replica);
  return {first, first + by_replica[static_cast<size_t>(replica)]};
}

at::Tensor replica_part(const at::Tensor& whole, const ChunkRule& rule, const BatchRequest& request, int replica) {
  if (!rule.dim || request.microbatches() == 1) {
    return whole;
  }
  const int first = request.first_of(replica);
  const int64_t rows = rows_between(request, first, first + request.by_replica[static_cast<size_t>(replica)]);
  return whole.narrow(*rule.dim, rows_between(request, 0, first) * rule.rows_per_item, rows * rule.rows_per_item);
}

at::Tensor chunk_of(
    const at::Tensor& whole, const ChunkRule& rule, const BatchRequest& request, int microbatch, int first) {
  if (!rule.dim || request.microbatches() == 1) {
    return whole;
  }
  return whole.narrow(
      *rule.dim, rows_between(request, first, microbatch) * rule.rows_per_item,
      request.rows[static_cast<size_t>(microbatch)] * rule.rows_per_item);
}

std::map<std::string, at::Tensor> aligned_inputs(const NamedTensors& inputs) {
  std::map<std::string, at::Tensor> aligned;
  for (const auto& [name, tensor] : inputs) {
    const bool is_aligned = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64 == 0;
    aligned[name] = is_aligned ? tensor : tensor.clone();
  }
  return aligned;
}

Json to_json(const BatchRequest& request) {
  Json json = {
      {"rows", request.rows},
      {"by_replica", request.by_replica},
      {"loss", request.loss},
      {"outputs_on_last", request.outputs_on_last}};
  for (const auto& [name, rule] : request.inputs) {
    json["inputs"][name] = {rule.dim.value_or(-1), rule.rows_per_item};
  }
  for (const auto& [name, rule] : request.outputs) {
    json["outputs"][name] = {rule.scalar, static_cast<int>(rule.merge.kind), rule.merge.dim};
  }
  if (request.loss_weights) {
    json["loss_weights"] = *request.loss_weights;
  }
  return json;
}

BatchRequest batch_request_from_json(const Json& json) {
  BatchRequest request{json.at("rows"), {}, {}, json.at("loss"), json.at("outputs_on_last")};
  request.by_replica = json.at("by_replica").get<std::vector<int>>();
  if (json.contains("inputs")) {
    for (const auto& [name, rule] : json.at("inputs").items()) {
      const int64_t dim = rule.at(0);
      request.inputs[name] = {dim < 0 ? std::nullopt : std::optional(dim), rule.at(1)};
    }
  }
  if (json.contains("outputs")) {
    for (const auto& [name, rule] : json.at("outputs").items()) {
      request.outputs[name] = {rule.at(0), {static_cast<MergeRule::Kind>(rule.at(1).get<int>()), rule.at(2)}};
    }
  }
  if (json.contains("loss_weights")) {
    request.loss_weights = json.at("loss_weights").get<std::vector<std::vector<double>>>();
  }
  return request;
}

}  // namespace shardpipe::runtime
