#include "tensor/axes.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "tensor/op_view.h"

namespace shardpipe::tensor {
namespace {

using graph::Node;

// The rule of each operator, by name without overload. Those that PyTorch itself tags as pointwise need no row.
const std::map<std::string_view, AxisRule>& rules() {
  static const std::map<std::string_view, AxisRule> table = {
      {"aten::view", reshape_axes},
      {"aten::reshape", reshape_axes},
      {"aten::_unsafe_view", reshape_axes},
      {"aten::flatten", reshape_axes},
      {"aten::unflatten", reshape_axes},
      {"aten::permute", permute_axes},
      {"aten::transpose", transpose_axes},
      {"aten::swapaxes", transpose_axes},
      {"aten::t", transpose_axes},
      {"aten::squeeze", squeeze_axes},
      {"aten::unsqueeze", unsqueeze_axes},
      {"aten::expand", expand_axes},
      {"aten::split", split_axes},
      {"aten::split_with_sizes", split_axes},
      {"aten::chunk", split_axes},
      {"aten::slice", slice_axes},
      {"aten::select", select_axes},
      {"aten::unbind", select_axes},
      {"aten::cat", cat_axes},
      {"aten::repeat_interleave", repeat_interleave_axes},

      {"aten::contiguous", pointwise_axes},
      {"aten::clone", pointwise_axes},
      {"aten::to", pointwise_axes},
      {"aten::_to_copy", pointwise_axes},
      {"aten::type_as", pointwise_axes},
      {"aten::detach", pointwise_axes},
      {"aten::alias", pointwise_axes},
      {"aten::dropout", pointwise_axes},
      {"aten::gelu_", pointwise_axes},
      {"aten::masked_fill", pointwise_axes},
      {"aten::masked_fill_", pointwise_axes},
      {"aten::where", pointwise_axes},

      {"aten::linear", linear_axes},
      {"aten::addmm", addmm_axes},
      {"aten::mm", matmul_axes},
      {"aten::bmm", matmul_axes},
      {"aten::matmul", matmul_axes},
      {"aten::baddbmm", baddbmm_axes},
      {"aten::embedding", embedding_axes},
      {"aten::cross_entropy_loss", cross_entropy_axes},
      {"aten::conv1d", convolution_axes},
      {"aten::conv2d", convolution_axes},
      {"aten::conv3d", convolution_axes},

      {"aten::scaled_dot_product_attention", attention_axes},
      {"shardpipe::cached_attention_reference", cached_attention_axes},
      {"shardpipe::cross_attention_reference", cross_attention_axes},
      {"shardpipe::sequence_attention", sequence_attention_axes},
      {"shardpipe::rotary_reference", rotary_axes},
      {"aten::layer_norm", layer_norm_axes},
      {"aten::rms_norm", layer_norm_axes},
      {"aten::batch_norm", batch_norm_axes},
      {"aten::softmax", along_dim_axes},
      {"aten::_softmax", along_dim_axes},
      {"aten::log_softmax", along_dim_axes},
      {"aten::cumsum", along_dim_axes},
      {"aten::index_select", along_dim_axes},
      {"aten::sum", reduction_axes},
      {"aten::mean", reduction_axes},
      {"aten::amax", reduction_axes},
      {"aten::max_pool2d", image_axes},
      {"aten::avg_pool2d", image_axes},
      {"aten::adaptive_avg_pool2d", image_axes},
      {"aten::upsample_nearest2d", image_axes},
      {"aten::upsample_bilinear2d", image_axes},
  };
  return table;
}

AxisRule rule_of(const Node& node) {
  if (!node.op) {
    return nullptr;
  }
  const auto at = rules().find(node.op->operator_name().name);
  if (at != rules().end()) {
    return at->second;
  }
  return node.op->hasTag(at::Tag::pointwise) ? pointwise_axes : nullptr;
}

}  // namespace

std::vector<int64_t> shortest_period(const std::vector<int64_t>& blocks) {
  for (size_t length = 1; length < blocks.size(); ++length) {
    bool repeats = blocks.size() % length == 0;
    for (size_t i = length; repeats && i < blocks.size(); ++i) {
      repeats = blocks[i] == blocks[i - length];
    }
    if (repeats) {
      return {blocks.begin(), blocks.begin() + static_cast<std::ptrdiff_t>(length)};
    }
  }
  return blocks;
}

std::set<size_t> written_operands(const Node& node) {
  std::set<size_t> written;
  size_t place = 0;
  const auto& schema = node.op->schema().arguments();
  for (size_t a = 0; a < node.arguments.size(); ++a) {
    const size_t values = graph::Graph::operands(node.arguments[a]).size();
    for (size_t i = 0; i < values; ++i, ++place) {
      if (a < schema.size() && schema[a].alias_info() != nullptr && schema[a].alias_info()->isWrite()) {
        written.insert(place);
      }
    }
  }
  return written;
}

std::vector<OpAxis> op_axes(const graph::Graph& graph, const Node& node) {
  const AxisRule rule = rule_of(node);
  return rule == nullptr ? std::vector<OpAxis>() : rule(OpView(graph, node));
}

bool keeps_sums(const graph::Graph& graph, const Node& node) {
  static const std::set<std::string_view> kLinear = {
      "aten::view",      "aten::reshape", "aten::_unsafe_view", "aten::flatten",   "aten::unflatten", "aten::permute",
      "aten::transpose", "aten::t",       "aten::squeeze",      "aten::unsqueeze", "aten::expand",    "aten::slice",
      "aten::select",    "aten::neg",     "aten::contiguous",   "aten::clone",     "aten::alias",     "aten::swapaxes"};
  if (!node.op) {
    return false;
  }
  const std::string& name = node.op->operator_name().name;
  if (kLinear.count(name) > 0) {
    return true;
  }
  const OpView op(graph, node);
  return name == "aten::dropout" && !op.boolean(2, true);
}

}  // namespace shardpipe::tensor
