#include "frontend/pt2/nodes.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "checkpoint/pt2_file.h"
#include "frontend/pt2/targets.h"
#include "graph/scalar.h"

namespace shardpipe::pt2 {
namespace {

using graph::Argument;
using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;
using graph::ValueType;

constexpr int kMaxBranchDepth = 16;

// The innermost module of a node; nullopt when none is known.
std::vector<ModuleCall> module_stack(const Document& json) {
  const auto metadata = json.find("metadata");
  if (metadata == json.end() || !metadata->is_object()) {
    return {};
  }
  const auto stack = metadata->find("nn_module_stack");
  return stack == metadata->end() ? std::vector<ModuleCall>() : parse_module_stack(text_of(*stack));
}

ValueType type_of_output(const std::string& kind) {
  return kind == "as_sym_int"     ? ValueType::integer
         : kind == "as_sym_float" ? ValueType::number
         : kind == "as_sym_bool"  ? ValueType::boolean
                                  : ValueType::tensor;
}

// One list of single arguments from those of a higher-order operator: lists (of operands) are opened.
void flatten(const Argument& argument, std::vector<Argument>& into) {
  if (const graph::ArgumentList* list = argument.as_list()) {
    for (const Argument& item : *list) {
      flatten(item, into);
    }
  } else {
    into.push_back(argument);
  }
}

// A higher-order call: constants before the first graph, graphs, operands behind.
struct HigherOrderCall {
  std::vector<Argument> before;
  std::vector<const Document*> graphs;
  std::vector<Argument> operands;
};
HigherOrderCall read_call(const Document& json, const Scope& scope) {
  HigherOrderCall call;
  for (const Document& input : list_of(json.at("inputs"))) {
    const Document& argument = input.at("arg");
    if (argument.is_object() && argument.contains("as_graph")) {
      call.graphs.push_back(&argument.at("as_graph").at("graph"));
    } else if (call.graphs.empty()) {
      call.before.push_back(plain_argument(argument, scope));
    } else {
      flatten(plain_argument(argument, scope), call.operands);
    }
  }
  return call;
}

// The outputs of a node, lists opened, as (kind, {"name"} or {"as_name"}).
std::vector<std::pair<std::string, const Document*>> flat_outputs(const Document& json) {
  std::vector<std::pair<std::string, const Document*>> outputs;
  for (const Document& output : list_of(json.at("outputs"))) {
    const auto [kind, value] = union_of(output);
    if (kind == "as_tensors") {
      for (const Document& item : list_of(value)) {
        outputs.emplace_back("as_tensor", &item);
      }
    } else {
      outputs.emplace_back(kind, &value);
    }
  }
  return outputs;
}

std::string output_name(const std::string& kind, const Document& output) {
  if (kind == "as_tensor") {
    return text_of(output.at("name"));
  }
  if (kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool") {
    return text_of(output.at("as_name"));
  }
  if (kind == "as_none") {
    return "";
  }
  throw_input("a result of kind {}, which this version does not run", kind);
}

// The flags that wrap_with_autocast was called with: device_type, dtype, enabled, cache_enabled.
std::optional<graph::Autocast> autocast_of(
    const HigherOrderCall& call, const std::string& device, const Region& outer) {
  const auto flag = [&](size_t i) { return i < call.before.size() ? call.before[i].as_constant() : nullptr; };
  const c10::IValue* on = flag(0);
  const c10::IValue* dtype = flag(1);
  const c10::IValue* enabled = flag(2);
  if (on == nullptr || !on->isString() || dtype == nullptr || enabled == nullptr || !enabled->isBool()) {
    throw_input("an autocast region without device, dtype and flag");
  }
  if (on->toStringRef() != "cpu" && on->toStringRef() != device) {
    return outer.autocast;  // it did nothing to the tensors of this program
  }
  graph::Autocast state = outer.autocast.value_or(graph::Autocast{});
  if (dtype->isInt()) {
    state.dtype = static_cast<at::ScalarType>(dtype->toInt());
  }
  state.enabled = enabled->toBool();
  if (const c10::IValue* cache = flag(3); cache != nullptr && cache->isBool()) {
    state.cache = cache->toBool();
  }
  return state;
}

}  // namespace

Node NodeBuilder::new_node(const Region& region, std::optional<std::string> module) {
  Node node;
  node.id = next_id_++;
  node.grad_enabled = region.grad_enabled;
  node.autocast = region.autocast;
  node.module = module.value_or("");
  paths_.push_back(std::move(module));
  return node;
}

void NodeBuilder::add(Graph& graph, const Document& exported, Scope& scope, const Region& region) {
  for (const Document& json : list_of(exported.at("nodes"))) {
    try {
      add_node(graph, exported, json, scope, region);
    } catch (Error& error) {
      if (error.message().find("in node ") == std::string::npos) {
        const std::vector<ModuleCall> stack = module_stack(json);
        const std::string path = stack.empty() ? region.module.value_or("") : stack.back().path;
        error.add_context(
            fmt::format("in node {} ({}) of \"{}\"", json.value("name", ""), text_of(json.at("target")), path));
      }
      throw;
    }
  }
}

void NodeBuilder::add_node(
    Graph& graph, const Document& exported, const Document& json, Scope& scope, const Region& region) {
  const Target target = parse_target(text_of(json.at("target")));
  if (target.kind == Target::Kind::assertion && list_of(json.at("outputs")).empty()) {
    return;
  }
  std::optional<std::string> module = region.module;
  const std::vector<ModuleCall> stack = module_stack(json);
  for (const ModuleCall& call : stack) {
    if (!call.path.empty()) {
      modules_.emplace(call.path, call.class_name);
    }
    module = call.path;
  }
  switch (target.kind) {
    case Target::Kind::scalar: {
      Node node = new_node(region, module);
      node.scalar = target.scalar;
      add_scalar(graph, json, scope, std::move(node));
      return;
    }
    case Target::Kind::region:
    case Target::Kind::cond:
    case Target::Kind::higher_order:
      add_higher_order(graph, exported, json, scope, {region.grad_enabled, region.autocast, module}, target);
      return;
    case Target::Kind::assertion:
    case Target::Kind::call: {
      Node node = new_node(region, module);
      node.op = graph::find_operator(target.name);
      add_call(graph, exported, json, scope, std::move(node));
      return;
    }
    case Target::Kind::unknown:
      throw_input("unknown operator");
  }
}

void NodeBuilder::add_call(Graph& graph, const Document& exported, const Document& json, Scope& scope, Node node) {
  const c10::FunctionSchema& schema = node.op->schema();
  std::vector<std::optional<Argument>> given(schema.arguments().size());
  for (const Document& input : list_of(json.at("inputs"))) {
    const auto index = schema.argumentIndexWithName(text_of(input.at("name")));
    if (!index) {
      throw_input(
          "no argument \"{}\" in LibTorch's {}", text_of(input.at("name")), c10::toString(schema.operator_name()));
    }
    const auto at = static_cast<size_t>(*index);
    given[at] = typed_argument(input.at("arg"), scope, *schema.arguments()[at].type());
  }
  for (size_t i = 0; i < given.size(); ++i) {
    const c10::Argument& described = schema.arguments()[i];
    if (!given[i] && !described.default_value()) {
      throw_input("no value for the argument \"{}\"", described.name());
    }
    Argument argument = given[i] ? std::move(*given[i]) : Argument(*described.default_value());
    const ValueId* id = argument.as_value();
    const bool is_int = id != nullptr && graph.values[static_cast<size_t>(*id)].type == ValueType::integer;
    if (is_int && described.type()->kind() == c10::TypeKind::FloatType) {
      argument = as_float(graph, argument, node);
    }
    node.arguments.push_back(std::move(argument));
  }
  const auto outputs = flat_outputs(json);
  const size_t returns = node.returns_list() ? outputs.size() : schema.returns().size();
  if (outputs.size() > returns) {
    throw_input("{} results, the operator has {}", outputs.size(), returns);
  }
  for (size_t i = 0; i < returns; ++i) {
    Value value;
    std::string name;
    if (i < outputs.size()) {
      const auto& [kind, output] = outputs[i];
      name = output_name(kind, *output);
      value.type = type_of_output(kind);
      describe(value, name, exported);
    }
    node.results.push_back(graph.add_value(std::move(value)));
    if (!name.empty()) {
      scope.insert_or_assign(name, Argument::value(node.results.back()));
    }
  }
  graph.nodes.push_back(std::move(node));
}

// Dtype and shape of a tensor, from the list of the graph it is in.
void NodeBuilder::describe(Value& value, const std::string& name, const Document& exported) const {
  const auto all = exported.find("tensor_values");
  if (value.type != ValueType::tensor || all == exported.end() || !all->is_object()) {
    return;
  }
  const auto meta = all->find(name);
  if (meta != all->end()) {
    value.dtype = checkpoint::exported_dtype(integer_of(meta->at("dtype")));
    value.shape = symbols_.shape(meta->at("sizes"));
  }
}

void NodeBuilder::add_scalar(Graph& graph, const Document& json, Scope& scope, Node node) {
  for (const Document& input : list_of(json.at("inputs"))) {
    node.arguments.push_back(plain_argument(input.at("arg"), scope));
  }
  const auto outputs = flat_outputs(json);
  if (outputs.size() != 1 || node.arguments.size() != graph::num_arguments(node.scalar)) {
    throw_input("{} operands and {} results", node.arguments.size(), outputs.size());
  }
  const auto& [kind, output] = outputs.front();
  Value value;
  value.type = type_of_output(kind);
  node.results.push_back(graph.add_value(std::move(value)));
  scope.insert_or_assign(output_name(kind, *output), Argument::value(node.results.back()));
  graph.nodes.push_back(std::move(node));
}

Argument NodeBuilder::as_float(Graph& graph, const Argument& argument, const Node& user) {
  Node node = new_node({}, paths_[static_cast<size_t>(user.id)]);
  node.scalar = graph::ScalarOperator::to_float;
  node.arguments.push_back(argument);
  Value value;
  value.type = ValueType::number;
  node.results.push_back(graph.add_value(std::move(value)));
  graph.nodes.push_back(std::move(node));
  return Argument::value(graph.nodes.back().results.front());
}

ValueId NodeBuilder::value_of(Graph& graph, const Argument& argument, const std::string& module) {
  if (const ValueId* id = argument.as_value()) {
    return *id;
  }
  const c10::IValue* constant = argument.as_constant();
  if (constant == nullptr || !(constant->isInt() || constant->isDouble() || constant->isBool())) {
    throw_input("a result that is neither a tensor nor a number");
  }
  Node node = new_node({}, module);
  node.scalar = graph::ScalarOperator::same;
  node.arguments.push_back(argument);
  Value value;
  value.type = constant->isInt() ? ValueType::integer : constant->isBool() ? ValueType::boolean : ValueType::number;
  node.results.push_back(graph.add_value(std::move(value)));
  graph.nodes.push_back(std::move(node));
  return graph.nodes.back().results.front();
}

void NodeBuilder::add_higher_order(
    Graph& graph, const Document& exported, const Document& json, Scope& scope, Region region, const Target& target) {
  const HigherOrderCall call = read_call(json, scope);
  const auto outputs = flat_outputs(json);
  if (target.kind == Target::Kind::cond && call.graphs.size() == 2 && call.before.size() == 1) {
    Node node = new_node(region, region.module);
    node.arguments.push_back(call.before.front());
    node.arguments.insert(node.arguments.end(), call.operands.begin(), call.operands.end());
    for (const Document* sub : call.graphs) {
      node.branches.push_back(branch(*sub, graph, node, outputs.size()));
    }
    for (const auto& [kind, output] : outputs) {
      Value value;
      value.type = type_of_output(kind);
      const std::string name = output_name(kind, *output);
      describe(value, name, exported);
      node.results.push_back(graph.add_value(std::move(value)));
      scope.insert_or_assign(name, Argument::value(node.results.back()));
    }
    graph.nodes.push_back(std::move(node));
    return;
  }
  if (target.kind != Target::Kind::region || call.graphs.size() != 1) {
    throw_input("a higher-order operator that this version does not run");
  }
  if (target.name == "wrap_with_set_grad_enabled") {
    const c10::IValue* flag = call.before.empty() ? nullptr : call.before[0].as_constant();
    if (flag == nullptr || !flag->isBool()) {
      throw_input("a gradient region without its flag");
    }
    region.grad_enabled = flag->toBool();
  } else if (target.name == "wrap_with_autocast") {
    const bool outermost = !region.autocast;
    region.autocast = autocast_of(call, device_, region);
    if (outermost && region.autocast) {
      region.autocast->region = next_region_++;
    }
  }
  const Document& sub = *call.graphs.front();
  const auto& inputs = list_of(sub.at("inputs"));
  // Some pass more than the graph takes: a name in front, keyword arguments behind.
  if (inputs.size() > call.operands.size()) {
    throw_input("a sub-graph of {} inputs is called with {}", inputs.size(), call.operands.size());
  }
  std::vector<Argument> operands;
  for (const Argument& operand : call.operands) {
    const c10::IValue* constant = operand.as_constant();
    if (constant == nullptr || !constant->isString()) {
      operands.push_back(operand);
    }
  }
  if (operands.size() < inputs.size()) {
    throw_input("a sub-graph of {} inputs is called with {}", inputs.size(), operands.size());
  }
  Scope inner;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto [kind, input] = union_of(inputs[i]);
    inner.insert_or_assign(output_name(kind, input), operands[i]);
  }
  add(graph, sub, inner, region);
  std::vector<Argument> results;
  for (const Document& output : list_of(sub.at("outputs"))) {
    flatten(plain_argument(output, inner), results);
  }
  if (results.size() != outputs.size()) {
    throw_input("a sub-graph of {} outputs has {} results", results.size(), outputs.size());
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    scope.insert_or_assign(output_name(outputs[i].first, *outputs[i].second), results[i]);
  }
}

std::shared_ptr<const Graph> NodeBuilder::branch(
    const Document& sub, const Graph& outer, const Node& node, size_t num_results) {
  if (++depth_ > kMaxBranchDepth) {
    throw_input("branches in branches more than {} deep", kMaxBranchDepth);
  }
  auto graph = std::make_shared<Graph>();
  graph->dimensions = outer.dimensions;
  Scope scope;
  for (const Document& input : list_of(sub.at("inputs"))) {
    const auto [kind, described] = union_of(input);
    Value value;
    value.kind = ValueKind::input;
    value.type = type_of_output(kind);
    value.name = output_name(kind, described);
    describe(value, value.name, sub);
    const std::string name = value.name;
    graph->inputs.push_back(graph->add_value(std::move(value)));
    scope.insert_or_assign(name, Argument::value(graph->inputs.back()));
  }
  // Regions around the cond hold inside as well: the executor has entered them.
  add(*graph, sub, scope, {true, std::nullopt, node.module});
  std::vector<Argument> results;
  for (const Document& output : list_of(sub.at("outputs"))) {
    flatten(plain_argument(output, scope), results);
  }
  if (results.size() != num_results || graph->inputs.size() + 1 != node.arguments.size()) {
    throw_input(
        "a branch of {} inputs and {} outputs for {} operands and {} results", graph->inputs.size(), results.size(),
        node.arguments.size() - 1, num_results);
  }
  for (const Argument& result : results) {
    graph->outputs.push_back({std::to_string(graph->outputs.size()), value_of(*graph, result, node.module)});
  }
  --depth_;
  return graph;
}

Node NodeBuilder::unplaced_node() {
  return new_node({}, std::nullopt);
}

void NodeBuilder::set_modules(Graph& graph) const {
  std::vector<std::optional<std::string>> paths;
  for (const Node& node : graph.nodes) {
    paths.push_back(paths_[static_cast<size_t>(node.id)]);
  }
  std::vector<std::string> filled = fill_paths(paths);
  for (size_t i = 0; i < filled.size(); ++i) {
    graph.nodes[i].module = std::move(filled[i]);
  }
  graph.modules = modules_;
}

}  // namespace shardpipe::pt2
