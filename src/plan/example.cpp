#include "plan/example.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>

namespace shardpipe::plan {
namespace {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;

// What keeps indices indices: views, copies, conversions, and what picks some of them.
constexpr std::array<std::string_view, 24> kCarriers = {
    "aten::view",  "aten::reshape",  "aten::_unsafe_view", "aten::squeeze",   "aten::unsqueeze", "aten::clone",
    "aten::to",    "aten::_to_copy", "aten::contiguous",   "aten::alias",     "aten::flatten",   "aten::permute",
    "aten::slice", "aten::select",   "aten::expand",       "aten::transpose", "aten::t",         "aten::detach",
    "aten::flip",  "aten::narrow",   "aten::cat",          "aten::stack",     "aten::repeat",    "aten::masked_fill"};

bool carries(const Node& node) {
  return node.op && std::find(kCarriers.begin(), kCarriers.end(), node.op->operator_name().name) != kCarriers.end();
}

std::optional<int64_t> extent(const Graph& graph, const graph::Argument& argument, int64_t dim) {
  const ValueId* id = argument.as_value();
  const Value* value = id == nullptr ? nullptr : &graph.values[static_cast<size_t>(*id)];
  if (value == nullptr || !value->shape || value->shape->empty()) {
    return std::nullopt;
  }
  const auto dims = static_cast<int64_t>(value->shape->size());
  dim = dim < 0 ? dim + dims : std::min(dim, dims - 1);
  const graph::Size& size = (*value->shape)[static_cast<size_t>(std::max<int64_t>(dim, 0))];
  return size.is_constant() ? std::optional(size.constant()) : std::optional<int64_t>(1);
}

// How many indices a node takes in the argument that the value is.
std::optional<int64_t> limit_of(const Graph& graph, const Node& node, const std::set<ValueId>& indices) {
  const auto is_index = [&](size_t position) {
    const ValueId* id = position < node.arguments.size() ? node.arguments[position].as_value() : nullptr;
    return id != nullptr && indices.count(*id) > 0;
  };
  const std::string name = node.op ? node.op->operator_name().name : "";
  if ((name == "aten::embedding" || name == "aten::embedding_bag") && is_index(1)) {
    return extent(graph, node.arguments[0], 0);
  }
  if (name == "aten::cross_entropy_loss" || name.starts_with("aten::nll_loss")) {
    return is_index(1) ? extent(graph, node.arguments[0], 1) : std::nullopt;
  }
  if ((name == "aten::index_select" || name == "aten::gather") && is_index(2)) {
    const c10::IValue* dim = node.arguments[1].as_constant();
    return extent(graph, node.arguments[0], dim != nullptr && dim->isInt() ? dim->toInt() : 0);
  }
  if (name == "aten::index") {
    const graph::ArgumentList* list = node.arguments[1].as_list();
    for (size_t dim = 0; list != nullptr && dim < list->size(); ++dim) {
      const ValueId* id = (*list)[dim].as_value();
      if (id != nullptr && indices.count(*id) > 0) {
        return extent(graph, node.arguments[0], static_cast<int64_t>(dim));
      }
    }
  }
  if (name == "aten::one_hot" && is_index(0)) {
    const c10::IValue* classes = node.arguments[1].as_constant();
    return classes != nullptr && classes->isInt() ? std::optional(classes->toInt()) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

std::map<std::string, int64_t> index_limits(const Graph& graph) {
  std::map<std::string, int64_t> limits;
  for (const ValueId input : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(input)];
    if (!value.dtype || !c10::isIntegralType(*value.dtype, /*includeBool=*/false)) {
      continue;
    }
    std::set<ValueId> indices = {input};
    for (const Node& node : graph.nodes) {
      if (const std::optional<int64_t> limit = limit_of(graph, node, indices)) {
        const auto known = limits.emplace(value.name, *limit).first;
        known->second = std::max<int64_t>(1, std::min(known->second, *limit));
      }
      const std::vector<ValueId> operands = Graph::operands(node);
      if (carries(node) &&
          std::any_of(operands.begin(), operands.end(), [&](ValueId id) { return indices.count(id) > 0; })) {
        indices.insert(node.results.begin(), node.results.end());
      }
    }
  }
  return limits;
}

std::vector<std::pair<std::string, at::Tensor>> random_inputs(
    const Graph& graph,
    const graph::Dimensions& dimensions,
    const std::map<std::string, int64_t>& limits,
    uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  std::vector<std::pair<std::string, at::Tensor>> inputs;
  for (const ValueId id : graph.inputs) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    at::Tensor tensor;
    if (value.type == graph::ValueType::integer) {
      const bool is_size = value.shape && value.shape->size() == 1;
      tensor = at::scalar_tensor(is_size ? value.shape->front().evaluate(dimensions) : 2, at::kLong);
    } else if (value.type != graph::ValueType::tensor) {
      tensor = at::scalar_tensor(1, value.type == graph::ValueType::boolean ? at::kBool : at::kDouble);
    } else {
      const std::vector<int64_t> shape =
          value.shape ? graph::evaluate(*value.shape, dimensions) : std::vector<int64_t>();
      const at::ScalarType dtype = value.dtype.value_or(at::kFloat);
      const auto limit = limits.find(value.name);
      if (c10::isIntegralType(dtype, /*includeBool=*/true)) {
        tensor = at::randint(limit == limits.end() ? 2 : limit->second, shape, generator, at::kLong).to(dtype);
      } else {
        tensor = at::randn(shape, generator, c10::isComplexType(dtype) ? dtype : at::kFloat).to(dtype);
      }
    }
    inputs.emplace_back(value.name, std::move(tensor));
  }
  return inputs;
}

}  // namespace shardpipe::plan
