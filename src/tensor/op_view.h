#pragma once

#include <optional>
#include <string_view>

#include "tensor/axes.h"

namespace shardpipe::tensor {

/// An operator call as its rule sees it: shapes of its tensors, constants among its arguments.
class OpView {
 public:
  OpView(const graph::Graph& graph, const graph::Node& node);

  const graph::Graph& graph() const { return graph_; }
  const graph::Node& node() const { return node_; }

  /// Where the (first) value of an argument stands among the operands; nullopt for a constant.
  std::optional<size_t> operand_of(size_t argument) const;
  size_t num_operands() const { return operands_.size(); }
  /// Of an operand or a result; nullptr for one that is no tensor or of unknown shape.
  const graph::Shape* operand_shape(size_t operand) const;
  const graph::Shape* result_shape(size_t result) const;
  /// Of the value of an argument.
  const graph::Shape* shape(size_t argument) const;

  /// A constant integer argument; `otherwise` where it is none.
  int64_t integer(size_t argument, int64_t otherwise) const;
  bool boolean(size_t argument, bool otherwise) const;
  double number(size_t argument, double otherwise) const;
  std::optional<std::vector<int64_t>> integers(size_t argument) const;
  bool is_none(size_t argument) const;

 private:
  const graph::Shape* shape_of(graph::ValueId id) const;
  const c10::IValue* constant(size_t argument) const;

  const graph::Graph& graph_;
  const graph::Node& node_;
  std::vector<graph::ValueId> operands_;
  std::vector<std::optional<size_t>> first_operand_;  // by argument
};

/// A dimension counted from the end where it is negative.
int wrap_dim(int64_t dim, size_t dims);

/// Whether a dimension can be divided at all: it is not known to have one element.
bool divisible(const graph::Size& size);

/// A function that lists the axes of one operator.
using AxisRule = std::vector<OpAxis> (*)(const OpView& op);

std::vector<OpAxis> pointwise_axes(const OpView& op);
/// Of operators that only arrange elements anew: view, reshape, flatten, unflatten, …
std::vector<OpAxis> reshape_axes(const OpView& op);
std::vector<OpAxis> permute_axes(const OpView& op);
std::vector<OpAxis> transpose_axes(const OpView& op);
std::vector<OpAxis> squeeze_axes(const OpView& op);
std::vector<OpAxis> unsqueeze_axes(const OpView& op);
std::vector<OpAxis> expand_axes(const OpView& op);
std::vector<OpAxis> split_axes(const OpView& op);
std::vector<OpAxis> slice_axes(const OpView& op);
std::vector<OpAxis> select_axes(const OpView& op);
std::vector<OpAxis> cat_axes(const OpView& op);
std::vector<OpAxis> repeat_interleave_axes(const OpView& op);

std::vector<OpAxis> linear_axes(const OpView& op);
std::vector<OpAxis> addmm_axes(const OpView& op);
std::vector<OpAxis> matmul_axes(const OpView& op);
std::vector<OpAxis> baddbmm_axes(const OpView& op);
std::vector<OpAxis> embedding_axes(const OpView& op);
std::vector<OpAxis> convolution_axes(const OpView& op);
std::vector<OpAxis> cross_entropy_axes(const OpView& op);

std::vector<OpAxis> attention_axes(const OpView& op);
std::vector<OpAxis> cached_attention_axes(const OpView& op);
std::vector<OpAxis> cross_attention_axes(const OpView& op);
std::vector<OpAxis> sequence_attention_axes(const OpView& op);
std::vector<OpAxis> rotary_axes(const OpView& op);
std::vector<OpAxis> layer_norm_axes(const OpView& op);
std::vector<OpAxis> batch_norm_axes(const OpView& op);
/// Of operators that mix elements along the dimension in their second argument only: softmax, cumsum, index_select.
std::vector<OpAxis> along_dim_axes(const OpView& op);
std::vector<OpAxis> reduction_axes(const OpView& op);
/// Of operators that keep the first two dimensions apart: pooling, padding and resizing of images.
std::vector<OpAxis> image_axes(const OpView& op);

}  // namespace shardpipe::tensor
