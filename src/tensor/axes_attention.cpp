// Attention, norms, reductions: operators that mix elements along some dimensions and leave others apart.
#include <algorithm>
#include <set>

#include "tensor/op_view.h"

namespace shardpipe::tensor {
namespace {

using graph::Shape;
using graph::Size;

int64_t constant(const Size& size) {
  return size.is_constant() ? size.constant() : 0;
}

// Whole heads of several tensors: heads of queries and of keys, which may be fewer, are cut in one proportion.
void track_heads(OpAxis& axis, const OpView& op, size_t argument, int dim) {
  const Shape* shape = op.shape(argument);
  if (shape != nullptr) {
    axis.operands[*op.operand_of(argument)] = {dim, {constant((*shape)[static_cast<size_t>(dim)])}};
  }
}

// Where several query heads share a key head: the last axis once more, without those of the arguments `keys`.
void add_grouped(std::vector<OpAxis>& axes, const OpView& op, std::initializer_list<size_t> keys) {
  OpAxis axis = axes.back();
  for (const size_t argument : keys) {
    const size_t place = *op.operand_of(argument);
    const auto at = axis.operands.find(place);
    if (at == axis.operands.end() || at->second.blocks == axis.operands.at(0).blocks) {
      return;
    }
    axis.grouped[place] = at->second.dim;
    axis.operands.erase(at);
  }
  axes.push_back(std::move(axis));
}

}  // namespace

// q [.., hq, L, E], k and v [.., hk, S, E], mask broadcast to [.., hq, L, S]
std::vector<OpAxis> attention_axes(const OpView& op) {
  const Shape* q = op.shape(0);
  const Shape* k = op.shape(1);
  const Shape* result = op.result_shape(0);
  if (q == nullptr || k == nullptr || result == nullptr || q->size() < 3 || k->size() != q->size()) {
    return {};
  }
  std::vector<OpAxis> axes;
  const auto heads = q->size() - 3;
  for (size_t d = 0; d <= heads; ++d) {
    const bool is_heads = d == heads && q->size() > 3;
    if (!divisible((*q)[d]) || (!is_heads && (*q)[d] != (*k)[d])) {
      continue;
    }
    if (is_heads && (constant((*q)[d]) == 0 || constant((*k)[d]) == 0)) {
      if ((*q)[d] != (*k)[d]) {
        continue;
      }
    }
    OpAxis axis;
    const bool fixed = is_heads && constant((*q)[d]) > 0;
    for (const size_t argument : {0, 1, 2}) {
      const int64_t size = constant((*op.shape(argument))[d]);
      axis.operands[*op.operand_of(argument)] = {
          static_cast<int>(d), fixed ? std::vector<int64_t>{size} : std::vector<int64_t>()};
    }
    axis.results[0] = axis.operands[0];
    if (const Shape* mask = op.shape(3)) {
      const size_t lacking = q->size() - mask->size();
      if (d >= lacking && (*mask)[d - lacking] == (*q)[d]) {
        axis.operands[*op.operand_of(3)] = {static_cast<int>(d - lacking), axis.results[0].blocks};
      }
    }
    axes.push_back(std::move(axis));
    if (fixed && op.boolean(7, false)) {
      add_grouped(axes, op, {1, 2});
    }
  }
  return axes;
}

// See kernels/ops.h for the shapes.
std::vector<OpAxis> cached_attention_axes(const OpView& op) {
  OpAxis axis;
  for (const size_t argument : {0, 1, 2, 3, 4}) {
    track_heads(axis, op, argument, 1);
  }
  if (op.operand_of(9)) {
    track_heads(axis, op, 9, 0);
  }
  if (op.operand_of(10)) {
    track_heads(axis, op, 10, 1);
  }
  const Shape* result = op.result_shape(0);
  if (result == nullptr) {
    return {};
  }
  axis.results[0] = {1, {constant((*result)[1])}};
  std::vector<OpAxis> axes = {axis};
  add_grouped(axes, op, {1, 2, 3, 4});
  return axes;
}

std::vector<OpAxis> cross_attention_axes(const OpView& op) {
  OpAxis axis;
  for (const size_t argument : {0, 1, 2, 3, 4}) {
    track_heads(axis, op, argument, 1);
  }
  const Shape* result = op.result_shape(0);
  if (result == nullptr) {
    return {};
  }
  axis.results[0] = {1, {constant((*result)[1])}};
  std::vector<OpAxis> axes = {axis};
  add_grouped(axes, op, {1, 2, 3, 4});
  return axes;
}

std::vector<OpAxis> sequence_attention_axes(const OpView& op) {
  OpAxis axis;
  for (const size_t argument : {0, 1, 2}) {
    track_heads(axis, op, argument, 1);
  }
  if (op.operand_of(5)) {
    track_heads(axis, op, 5, 1);
  }
  const Shape* result = op.result_shape(0);
  if (result == nullptr) {
    return {};
  }
  axis.results[0] = {1, {constant((*result)[1])}};
  std::vector<OpAxis> axes = {axis};
  add_grouped(axes, op, {1, 2});
  return axes;
}

// x [.., heads, head_dim], cos and sin without heads
std::vector<OpAxis> rotary_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  if (x == nullptr || x->size() < 2) {
    return {};
  }
  OpAxis axis;
  const int heads = static_cast<int>(x->size()) - 2;
  axis.operands[0] = {heads, {}};
  axis.results[0] = {heads, {}};
  return {axis};
}

std::vector<OpAxis> layer_norm_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  if (x == nullptr) {
    return {};
  }
  const auto normalized = op.integers(1);
  std::vector<OpAxis> axes;
  for (size_t d = 0; normalized && d + normalized->size() < x->size(); ++d) {
    if (divisible((*x)[d])) {
      OpAxis axis;
      axis.operands[0] = {static_cast<int>(d), {}};
      axis.results[0] = {static_cast<int>(d), {}};
      axes.push_back(std::move(axis));
    }
  }
  return axes;
}

// x [batch, channels, ..]; all other tensors are [channels].
std::vector<OpAxis> batch_norm_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  if (x == nullptr || x->size() < 2) {
    return {};
  }
  OpAxis axis;
  axis.operands[0] = {1, {}};
  for (size_t i = 1; i < op.num_operands(); ++i) {
    axis.operands[i] = {0, {}};
  }
  for (size_t r = 0; r < op.node().results.size(); ++r) {
    axis.results[r] = {r == 0 ? 1 : 0, {}};
  }
  return {axis};
}

std::vector<OpAxis> along_dim_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  const Shape* result = op.result_shape(0);
  if (x == nullptr || result == nullptr || x->size() != result->size()) {
    return {};
  }
  const int along = wrap_dim(op.integer(1, 0), x->size());
  std::vector<OpAxis> axes;
  for (int d = 0; d < static_cast<int>(x->size()); ++d) {
    if (d != along && divisible((*x)[static_cast<size_t>(d)])) {
      OpAxis axis;
      axis.operands[0] = {d, {}};
      for (size_t r = 0; r < op.node().results.size(); ++r) {
        axis.results[r] = {d, {}};
      }
      axes.push_back(std::move(axis));
    }
  }
  return axes;
}

// (x, dims, keepdim, …): the dimensions that are not reduced.
std::vector<OpAxis> reduction_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  const auto dims = op.integers(1);
  if (x == nullptr || op.result_shape(0) == nullptr || !dims || dims->empty()) {
    return {};
  }
  std::set<int> reduced;
  for (const int64_t dim : *dims) {
    reduced.insert(wrap_dim(dim, x->size()));
  }
  const bool keeps = op.boolean(2, false);
  std::vector<OpAxis> axes;
  int at = 0;
  for (int d = 0; d < static_cast<int>(x->size()); ++d) {
    if (reduced.count(d) > 0) {
      at += keeps ? 1 : 0;
      continue;
    }
    OpAxis axis;
    axis.operands[0] = {d, {}};
    for (size_t r = 0; r < op.node().results.size(); ++r) {
      axis.results[r] = {at, {}};
    }
    axes.push_back(std::move(axis));
    ++at;
  }
  return axes;
}

std::vector<OpAxis> image_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  const Shape* result = op.result_shape(0);
  std::vector<OpAxis> axes;
  for (int d = 0; x != nullptr && result != nullptr && x->size() >= 3 && result->size() == x->size() && d < 2; ++d) {
    const auto at = static_cast<size_t>(d);
    if ((*x)[at] == (*result)[at] && divisible((*x)[at])) {
      OpAxis axis;
      axis.operands[0] = {d, {}};
      for (size_t r = 0; r < op.node().results.size(); ++r) {
        axis.results[r] = {d, {}};
      }
      axes.push_back(std::move(axis));
    }
  }
  return axes;
}

}  // namespace shardpipe::tensor
