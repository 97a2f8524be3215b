#include "graph/op_table.h"

#include <algorithm>
#include <array>

namespace shardpipe::graph {
namespace {

const Value* tensor_of(const Graph& graph, const Argument& argument) {
  const ValueId* id = argument.as_value();
  if (id == nullptr) {
    return nullptr;
  }
  const Value& value = graph.values[static_cast<size_t>(*id)];
  return value.shape ? &value : nullptr;
}

int64_t count(const Value& value, const Dimensions& dimensions) {
  int64_t product = 1;
  for (const Size& size : *value.shape) {
    product *= size.evaluate(dimensions);
  }
  return product;
}

int64_t result_elements(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  int64_t sum = 0;
  for (const ValueId id : node.results) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    sum += value.shape ? count(value, dimensions) : 0;
  }
  return sum;
}

// An operator whose results may all be views of its arguments: view, transpose, split, reshape, contiguous, to.
bool is_view(const Node& node) {
  if (!node.op) {
    return false;
  }
  const auto& returns = node.op->schema().returns();
  return std::all_of(returns.begin(), returns.end(), [](const c10::Argument& result) {
    const c10::AliasInfo* info = result.alias_info();
    const c10::AliasInfo* item = info == nullptr || info->containedTypes().empty() ? info : &info->containedTypes()[0];
    return item != nullptr && !item->beforeSets().empty() && !item->isWrite();
  });
}

int64_t no_flops(const Graph&, const Node&, const Dimensions&) {
  return 0;
}

// x [.., in] with weights [out, in] in arguments first..last: 2 rows in out each.
int64_t products(
    const Graph& graph, const Node& node, const Dimensions& dimensions, size_t first_weight, size_t last_weight) {
  const Value* x = tensor_of(graph, node.arguments[0]);
  int64_t flops = 0;
  const auto add = [&](const Argument& argument) {
    const Value* weight = tensor_of(graph, argument);
    if (x != nullptr && weight != nullptr && weight->shape->size() == 2) {
      flops += 2 * count(*x, dimensions) * (*weight->shape)[0].evaluate(dimensions);
    }
  };
  for (size_t i = first_weight; i <= last_weight && i < node.arguments.size(); ++i) {
    if (const ArgumentList* list = node.arguments[i].as_list()) {
      std::for_each(list->begin(), list->end(), add);
    } else {
      add(node.arguments[i]);
    }
  }
  return flops;
}

int64_t linear(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  return products(graph, node, dimensions, 1, 1);
}

int64_t linear_gated(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  return products(graph, node, dimensions, 1, 2) + 8 * result_elements(graph, node, dimensions);
}

// [.., n, k] x [.., k, m]: 2 k per result element; k is the last extent of the left operand.
template <size_t kLeft>
int64_t matmul(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  const Value* left = tensor_of(graph, node.arguments[kLeft]);
  return left == nullptr || left->shape->empty()
             ? 0
             : 2 * left->shape->back().evaluate(dimensions) * result_elements(graph, node, dimensions);
}

// Scores and weighted sum over the whole capacity of the cache: an upper bound that does not depend on positions.
int64_t cached_attention(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  const Value* cache = tensor_of(graph, node.arguments[3]);
  return cache == nullptr || cache->shape->size() != 4
             ? 0
             : 4 * (*cache->shape)[2].evaluate(dimensions) * result_elements(graph, node, dimensions);
}

// Each token against all: an upper bound, that of one sequence.
int64_t sequence_attention(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  const Value* k = tensor_of(graph, node.arguments[1]);
  return k == nullptr || k->shape->empty()
             ? 0
             : 4 * (*k->shape)[0].evaluate(dimensions) * result_elements(graph, node, dimensions);
}

// q [.., L, E], k [.., S, E], v [.., S, D]: q k^T and its product with v, whatever the mask leaves of them.
int64_t attention(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  const Value* q = tensor_of(graph, node.arguments[0]);
  const Value* k = tensor_of(graph, node.arguments[1]);
  if (q == nullptr || k == nullptr || k->shape->size() < 2) {
    return 0;
  }
  const int64_t keys = (*k->shape)[k->shape->size() - 2].evaluate(dimensions);
  return 2 * keys * (count(*q, dimensions) + result_elements(graph, node, dimensions));
}

// weight [out, in / groups, kernel..] meets each result element; transposed, weight [in, out / groups, kernel..] meets
// each element of the input.
int64_t convolution(const Graph& graph, const Node& node, const Dimensions& dimensions, bool transposed) {
  const Value* input = tensor_of(graph, node.arguments[0]);
  const Value* weight = tensor_of(graph, node.arguments[1]);
  if (input == nullptr || weight == nullptr || weight->shape->empty()) {
    return 0;
  }
  const int64_t elements = transposed ? count(*input, dimensions) : result_elements(graph, node, dimensions);
  const int64_t channels = (*weight->shape)[0].evaluate(dimensions);
  return channels == 0 ? 0 : 2 * elements * (count(*weight, dimensions) / channels);
}

template <bool kTransposed>
int64_t convolution(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  return convolution(graph, node, dimensions, kTransposed);
}

int64_t any_convolution(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  const c10::IValue* transposed = node.arguments[6].as_constant();
  return convolution(graph, node, dimensions, transposed != nullptr && transposed->toBool());
}

constexpr std::array<OpRow, 24> kTable = {{
    {"aten::addmm", matmul<1>},
    {"aten::baddbmm", matmul<1>},
    {"aten::bmm", matmul<0>},
    {"aten::conv1d", convolution<false>},
    {"aten::conv2d", convolution<false>},
    {"aten::conv3d", convolution<false>},
    {"aten::conv_transpose1d", convolution<true>},
    {"aten::conv_transpose2d", convolution<true>},
    {"aten::conv_transpose3d", convolution<true>},
    {"aten::convolution", any_convolution},
    {"aten::embedding", no_flops},
    {"aten::index_select", no_flops},
    {"aten::linear", linear},
    {"aten::matmul", matmul<0>},
    {"aten::mm", matmul<0>},
    {"aten::scaled_dot_product_attention", attention},
    {"shardpipe::cached_attention", cached_attention},
    {"shardpipe::cached_attention_reference", cached_attention},
    {"shardpipe::cross_attention", cached_attention},
    {"shardpipe::cross_attention_reference", cached_attention},
    {"shardpipe::linear", linear},
    {"shardpipe::linear_gated", linear_gated},
    {"shardpipe::linear_group", linear},
    {"shardpipe::sequence_attention", sequence_attention},
}};
static_assert(std::is_sorted(kTable.begin(), kTable.end(), [](const OpRow& a, const OpRow& b) {
  return std::string_view(a.name) < std::string_view(b.name);
}));

}  // namespace

std::span<const OpRow> op_table() {
  return kTable;
}

const OpRow* find_op(std::string_view name) {
  const auto row = std::lower_bound(kTable.begin(), kTable.end(), name, [](const OpRow& a, std::string_view b) {
    return std::string_view(a.name) < b;
  });
  return row != kTable.end() && name == row->name ? &*row : nullptr;
}

int64_t node_flops(const Graph& graph, const Node& node, const Dimensions& dimensions) {
  const OpRow* row = node.op ? find_op(node.op->operator_name().name) : nullptr;
  if (row != nullptr) {
    return row->flops(graph, node, dimensions);
  }
  return is_view(node) ? 0 : result_elements(graph, node, dimensions);
}

}  // namespace shardpipe::graph
