// Operators that multiply by weights.
#include "tensor/op_view.h"

namespace shardpipe::tensor {
namespace {

using graph::Shape;

int last(const Shape& shape) {
  return static_cast<int>(shape.size()) - 1;
}

}  // namespace

// x [.., k], weight [n, k], bias [n] -> [.., n]. Along k the bias is no part of the sum: the rewriting adds it once.
std::vector<OpAxis> linear_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  const Shape* weight = op.shape(1);
  const Shape* result = op.result_shape(0);
  if (x == nullptr || weight == nullptr || result == nullptr || weight->size() != 2) {
    return {};
  }
  std::vector<OpAxis> axes(2);
  axes[0].operands[*op.operand_of(1)] = {0, {}};
  if (op.operand_of(2)) {
    axes[0].operands[*op.operand_of(2)] = {0, {}};
  }
  axes[0].results[0] = {last(*result), {}};
  axes[1].operands[*op.operand_of(0)] = {last(*x), {}};
  axes[1].operands[*op.operand_of(1)] = {1, {}};
  axes[1].sums = true;
  for (int d = 0; d < last(*x); ++d) {
    OpAxis axis;
    axis.operands[0] = {d, {}};
    axis.results[0] = {d, {}};
    axes.push_back(std::move(axis));
  }
  return axes;
}

// beta bias [n] or [rows, n] + alpha x [rows, k] weight [k, n]
std::vector<OpAxis> addmm_axes(const OpView& op) {
  const Shape* bias = op.shape(0);
  const Shape* x = op.shape(1);
  const Shape* weight = op.shape(2);
  const Shape* result = op.result_shape(0);
  if (bias == nullptr || x == nullptr || weight == nullptr || result == nullptr) {
    return {};
  }
  std::vector<OpAxis> axes(2);
  if (!bias->empty() && bias->back() == result->back()) {
    axes[0].operands[0] = {last(*bias), {}};
  }
  axes[0].operands[2] = {1, {}};
  axes[0].results[0] = {1, {}};
  axes[1].operands[1] = {1, {}};
  axes[1].operands[2] = {0, {}};
  axes[1].sums = true;
  OpAxis rows;
  if (bias->size() == 2 && bias->front() == result->front()) {
    rows.operands[0] = {0, {}};
  }
  rows.operands[1] = {0, {}};
  rows.results[0] = {0, {}};
  axes.push_back(std::move(rows));
  return axes;
}

namespace {

// a [.., n, k] b [.., k, m] -> [.., n, m], leading dimensions broadcast; operands `a` and `b`, and one that is added.
std::vector<OpAxis> product_axes(const OpView& op, size_t a, size_t b, std::optional<size_t> added) {
  const Shape* left = op.operand_shape(a);
  const Shape* right = op.operand_shape(b);
  const Shape* result = op.result_shape(0);
  if (left == nullptr || right == nullptr || result == nullptr || left->empty() || right->empty()) {
    return {};
  }
  std::vector<OpAxis> axes;
  const auto finish = [&](OpAxis axis, std::optional<size_t> dim) {
    if (dim) {
      axis.results[0] = {static_cast<int>(*dim), {}};
      if (added) {
        const Shape* sum = op.operand_shape(*added);
        const size_t lacking = sum == nullptr ? 0 : result->size() - sum->size();
        if (sum != nullptr && *dim >= lacking && (*sum)[*dim - lacking] == (*result)[*dim]) {
          axis.operands[*added] = {static_cast<int>(*dim - lacking), {}};
        }
      }
    } else {
      axis.sums = true;
    }
    axes.push_back(std::move(axis));
  };
  OpAxis inner;
  inner.operands[a] = {last(*left), {}};
  inner.operands[b] = {right->size() == 1 ? 0 : last(*right) - 1, {}};
  if (!added) {
    finish(std::move(inner), std::nullopt);
  }
  size_t end = result->size();  // leading dimensions are before it
  if (right->size() >= 2) {
    OpAxis columns;
    columns.operands[b] = {last(*right), {}};
    finish(std::move(columns), --end);
  }
  if (left->size() >= 2) {
    OpAxis rows;
    rows.operands[a] = {last(*left) - 1, {}};
    finish(std::move(rows), --end);
  }
  for (size_t d = 0; d < end; ++d) {
    OpAxis axis;
    for (const size_t i : {a, b}) {
      const Shape* shape = op.operand_shape(i);
      const size_t lacking = end + 2 - std::min(end + 2, shape->size());
      if (shape->size() >= 3 && d >= lacking && (*shape)[d - lacking] == (*result)[d]) {
        axis.operands[i] = {static_cast<int>(d - lacking), {}};
      }
    }
    if (!axis.operands.empty() && divisible((*result)[d])) {
      finish(std::move(axis), d);
    }
  }
  return axes;
}

}  // namespace

std::vector<OpAxis> matmul_axes(const OpView& op) {
  return op.num_operands() < 2 ? std::vector<OpAxis>() : product_axes(op, 0, 1, std::nullopt);
}

std::vector<OpAxis> baddbmm_axes(const OpView& op) {
  return op.num_operands() < 3 ? std::vector<OpAxis>() : product_axes(op, 1, 2, 0);
}

// weight [rows, d], indices -> [.., d]. Along the rows each part looks up those that it has.
std::vector<OpAxis> embedding_axes(const OpView& op) {
  const Shape* indices = op.shape(1);
  const Shape* result = op.result_shape(0);
  if (indices == nullptr || result == nullptr) {
    return {};
  }
  std::vector<OpAxis> axes(2);
  axes[0].operands[0] = {1, {}};
  axes[0].results[0] = {last(*result), {}};
  axes[1].operands[0] = {0, {}};
  axes[1].sums = true;
  for (int d = 0; d < static_cast<int>(indices->size()); ++d) {
    OpAxis axis;
    axis.operands[*op.operand_of(1)] = {d, {}};
    axis.results[0] = {d, {}};
    axes.push_back(std::move(axis));
  }
  return axes;
}

// x [batch, in, ..], weight [out, in / groups, ..], bias [out]. `groups` is the seventh argument of conv1d to conv3d.
std::vector<OpAxis> convolution_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  const Shape* weight = op.shape(1);
  const Shape* result = op.result_shape(0);
  if (x == nullptr || weight == nullptr || result == nullptr || x->size() != weight->size()) {
    return {};
  }
  const int64_t groups = op.integer(6, 0);
  OpAxis rows;
  rows.operands[0] = {0, {}};
  rows.results[0] = {0, {}};
  std::vector<OpAxis> axes = {rows};
  OpAxis out;
  out.operands[*op.operand_of(1)] = {0, {}};
  if (op.operand_of(2)) {
    out.operands[*op.operand_of(2)] = {0, {}};
  }
  out.results[0] = {1, {}};
  if (groups == 1) {
    axes.push_back(std::move(out));
    OpAxis in;
    in.operands[0] = {1, {}};
    in.operands[*op.operand_of(1)] = {1, {}};
    in.sums = true;
    axes.push_back(std::move(in));
  } else if ((*x)[1].is_constant() && groups > 1 && (*x)[1].constant() == groups && (*weight)[0].constant() == groups) {
    out.operands[0] = {1, {}};  // each channel by itself
    axes.push_back(std::move(out));
  }
  return axes;
}

// x [classes] or [rows, classes, ..] with class numbers: see cross_entropy.h.
std::vector<OpAxis> cross_entropy_axes(const OpView& op) {
  const Shape* x = op.shape(0);
  const Shape* target = op.shape(1);
  if (x == nullptr || target == nullptr || x->empty() || target->size() + 1 != x->size() || !op.is_none(2) ||
      op.number(5, 1) != 0) {
    return {};
  }
  OpAxis axis;
  const int dim = x->size() == 1 ? 0 : 1;
  if (!(*x)[static_cast<size_t>(dim)].is_constant()) {
    return {};
  }
  axis.operands[0] = {dim, {(*x)[static_cast<size_t>(dim)].constant()}};
  axis.whole_results = true;
  return {axis};
}

}  // namespace shardpipe::tensor
