// Operators that move elements and compute nothing, and those that compute element by element.
#include <algorithm>
#include <numeric>

#include "tensor/op_view.h"

namespace shardpipe::tensor {
namespace {

using graph::Shape;
using graph::Size;

// The axis of one dimension of the first operand and one of the first result.
OpAxis pair_axis(int from, int to) {
  OpAxis axis;
  axis.operands[0] = {from, {}};
  axis.results[0] = {to, {}};
  return axis;
}

// Sizes as numbers, so that those with named dimensions can be ordered and divided: two sets of prime values tell what
// depends on them.
struct Numbers {
  std::vector<int64_t> first;
  std::vector<int64_t> second;
};

Numbers numbers(const Shape& shape, const std::vector<std::string>& dimensions) {
  constexpr std::array<int64_t, 8> kPrimes = {10007, 10009, 10037, 10039, 10061, 10067, 10069, 10079};
  graph::Dimensions values[2];
  for (size_t i = 0; i < dimensions.size(); ++i) {
    values[0][dimensions[i]] = kPrimes[i % kPrimes.size()];
    values[1][dimensions[i]] = kPrimes[(i + 3) % kPrimes.size()] + 100 * static_cast<int64_t>(i);
  }
  return {graph::evaluate(shape, values[0]), graph::evaluate(shape, values[1])};
}

// A dimension among the elements in row-major order: `outer` counts what is before it.
struct Extent {
  int dim = 0;
  int64_t outer[2] = {1, 1};
  int64_t size[2] = {1, 1};
};

std::vector<Extent> extents(const Numbers& shape) {
  std::vector<Extent> list;
  int64_t outer[2] = {1, 1};
  for (size_t d = 0; d < shape.first.size(); ++d) {
    list.push_back({static_cast<int>(d), {outer[0], outer[1]}, {shape.first[d], shape.second[d]}});
    outer[0] *= std::max<int64_t>(1, shape.first[d]);
    outer[1] *= std::max<int64_t>(1, shape.second[d]);
  }
  return list;
}

// Elements from the place `start` to the end of a dimension that contains it; 0 where it contains no such place.
std::array<int64_t, 2> inner(const Extent& extent, const int64_t* start) {
  std::array<int64_t, 2> result = {0, 0};
  for (size_t i = 0; i < 2; ++i) {
    const int64_t end = extent.outer[i] * extent.size[i];
    const bool contains =
        start[i] >= extent.outer[i] && start[i] < end && start[i] % extent.outer[i] == 0 && end % start[i] == 0;
    if (!contains) {
      return {0, 0};
    }
    result[i] = end / start[i];
  }
  return result;
}

}  // namespace

std::vector<OpAxis> pointwise_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* result = op.result_shape(0);
  if (result == nullptr) {
    return axes;
  }
  for (size_t d = 0; d < result->size(); ++d) {
    if (!divisible((*result)[d])) {
      continue;
    }
    OpAxis axis;
    for (size_t i = 0; i < op.num_operands(); ++i) {
      const Shape* shape = op.operand_shape(i);
      const size_t lacking = shape == nullptr ? 0 : result->size() - shape->size();
      if (shape != nullptr && shape->size() <= result->size() && d >= lacking &&
          (*shape)[d - lacking] == (*result)[d]) {
        axis.operands[i] = {static_cast<int>(d - lacking), {}};
      }
    }
    for (size_t r = 0; r < op.node().results.size(); ++r) {
      if (op.result_shape(r) != nullptr && *op.result_shape(r) == *result) {
        axis.results[r] = {static_cast<int>(d), {}};
      }
    }
    if (!axis.operands.empty() && axis.results.size() == op.node().results.size()) {
      axes.push_back(std::move(axis));
    }
  }
  return axes;
}

std::vector<OpAxis> reshape_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* from = op.operand_shape(0);
  const Shape* to = op.result_shape(0);
  if (from == nullptr || to == nullptr) {
    return axes;
  }
  const std::vector<Extent> left = extents(numbers(*from, op.graph().dimensions));
  const std::vector<Extent> right = extents(numbers(*to, op.graph().dimensions));
  std::vector<std::pair<int64_t, int64_t>> starts;
  for (const std::vector<Extent>* side : {&left, &right}) {
    for (const Extent& extent : *side) {
      if (extent.size[0] > 1) {
        starts.emplace_back(extent.outer[0], extent.outer[1]);
      }
    }
  }
  std::sort(starts.begin(), starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  for (const auto& [first, second] : starts) {
    const int64_t start[2] = {first, second};
    for (const Extent& a : left) {
      const std::array<int64_t, 2> in = inner(a, start);
      for (const Extent& c : right) {
        const std::array<int64_t, 2> out = inner(c, start);
        if (in[0] < 2 || out[0] < 2) {
          continue;
        }
        const bool whole = a.outer[0] == first && c.outer[0] == first && a.size[0] == c.size[0] && in == out;
        if (whole) {
          axes.push_back(pair_axis(a.dim, c.dim));
        } else if (in[0] == in[1] && out[0] == out[1]) {
          OpAxis axis;
          axis.operands[0] = {a.dim, {in[0]}};
          axis.results[0] = {c.dim, {out[0]}};
          axes.push_back(std::move(axis));
        }
      }
    }
  }
  return axes;
}

std::vector<OpAxis> permute_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* shape = op.operand_shape(0);
  const auto order = op.integers(1);
  for (size_t d = 0; shape != nullptr && order && d < order->size(); ++d) {
    axes.push_back(pair_axis(wrap_dim((*order)[d], shape->size()), static_cast<int>(d)));
  }
  return axes;
}

std::vector<OpAxis> transpose_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* shape = op.operand_shape(0);
  if (shape == nullptr) {
    return axes;
  }
  std::vector<int> order(shape->size());
  std::iota(order.begin(), order.end(), 0);
  if (order.size() >= 2) {  // t and numpy_T-like forms have no dimensions of their own
    const int first = wrap_dim(op.integer(1, 0), shape->size());
    const int second = wrap_dim(op.integer(2, 1), shape->size());
    std::swap(order[static_cast<size_t>(first)], order[static_cast<size_t>(second)]);
  }
  for (size_t d = 0; d < order.size(); ++d) {
    axes.push_back(pair_axis(order[d], static_cast<int>(d)));
  }
  return axes;
}

std::vector<OpAxis> squeeze_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* from = op.operand_shape(0);
  const Shape* to = op.result_shape(0);
  if (from == nullptr || to == nullptr) {
    return axes;
  }
  // Dimensions of one element are all that goes; the others keep their order.
  size_t at = 0;
  for (size_t d = 0; d < from->size(); ++d) {
    while (at < to->size() && !divisible((*to)[at]) && divisible((*from)[d])) {
      ++at;
    }
    if (divisible((*from)[d]) && at < to->size() && (*to)[at] == (*from)[d]) {
      axes.push_back(pair_axis(static_cast<int>(d), static_cast<int>(at)));
      ++at;
    }
  }
  return axes;
}

std::vector<OpAxis> unsqueeze_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* shape = op.operand_shape(0);
  const Shape* result = op.result_shape(0);
  if (shape == nullptr || result == nullptr) {
    return axes;
  }
  const int added = wrap_dim(op.integer(1, 0), result->size());
  for (int d = 0; d < static_cast<int>(shape->size()); ++d) {
    axes.push_back(pair_axis(d, d < added ? d : d + 1));
  }
  return axes;
}

std::vector<OpAxis> expand_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* from = op.operand_shape(0);
  const Shape* to = op.result_shape(0);
  if (from == nullptr || to == nullptr) {
    return axes;
  }
  const size_t lacking = to->size() - from->size();
  for (size_t d = 0; d < to->size(); ++d) {
    if (d >= lacking && (*from)[d - lacking] == (*to)[d]) {
      axes.push_back(pair_axis(static_cast<int>(d - lacking), static_cast<int>(d)));
    }
  }
  return axes;
}

namespace {

// Dimensions other than `skip` of operand 0 and of all results, which have as many.
std::vector<OpAxis> other_dims(const OpView& op, int skip) {
  std::vector<OpAxis> axes;
  const Shape* shape = op.operand_shape(0);
  for (int d = 0; shape != nullptr && d < static_cast<int>(shape->size()); ++d) {
    if (d == skip || !divisible((*shape)[static_cast<size_t>(d)])) {
      continue;
    }
    OpAxis axis;
    axis.operands[0] = {d, {}};
    for (size_t r = 0; r < op.node().results.size(); ++r) {
      axis.results[r] = {d, {}};
    }
    axes.push_back(std::move(axis));
  }
  return axes;
}

}  // namespace

std::vector<OpAxis> split_axes(const OpView& op) {
  const Shape* shape = op.operand_shape(0);
  if (shape == nullptr) {
    return {};
  }
  const int dim = wrap_dim(op.integer(2, 0), shape->size());
  std::vector<OpAxis> axes = other_dims(op, dim);
  OpAxis along;
  std::vector<int64_t> blocks;
  for (size_t r = 0; r < op.node().results.size(); ++r) {
    const Shape* piece = op.result_shape(r);
    if (piece == nullptr || !(*piece)[static_cast<size_t>(dim)].is_constant()) {
      return axes;
    }
    blocks.push_back((*piece)[static_cast<size_t>(dim)].constant());
    along.results[r] = {dim, {blocks.back()}};
  }
  along.operands[0] = {dim, shortest_period(blocks)};
  axes.push_back(std::move(along));
  return axes;
}

std::vector<OpAxis> slice_axes(const OpView& op) {
  const Shape* shape = op.operand_shape(0);
  const Shape* result = op.result_shape(0);
  if (shape == nullptr || result == nullptr) {
    return {};
  }
  const auto dim = static_cast<size_t>(wrap_dim(op.integer(1, 0), shape->size()));
  std::vector<OpAxis> axes = other_dims(op, static_cast<int>(dim));
  const Size& from = (*shape)[dim];
  const Size& to = (*result)[dim];
  if (from == to) {  // all of it
    axes.push_back(pair_axis(static_cast<int>(dim), static_cast<int>(dim)));
  }
  return axes;
}

std::vector<OpAxis> select_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* shape = op.operand_shape(0);
  if (shape == nullptr) {
    return axes;
  }
  const int dim = wrap_dim(op.integer(1, 0), shape->size());
  for (int d = 0; d < static_cast<int>(shape->size()); ++d) {
    if (d == dim) {
      continue;
    }
    OpAxis axis;
    axis.operands[0] = {d, {}};
    for (size_t r = 0; r < op.node().results.size(); ++r) {  // unbind has several
      axis.results[r] = {d < dim ? d : d - 1, {}};
    }
    axes.push_back(std::move(axis));
  }
  return axes;
}

std::vector<OpAxis> cat_axes(const OpView& op) {
  std::vector<OpAxis> axes;
  const Shape* result = op.result_shape(0);
  if (result == nullptr) {
    return axes;
  }
  const int dim = wrap_dim(op.integer(1, 0), result->size());
  for (int d = 0; d < static_cast<int>(result->size()); ++d) {
    OpAxis axis;
    std::vector<int64_t> blocks;
    for (size_t i = 0; i < op.num_operands(); ++i) {
      const Shape* shape = op.operand_shape(i);
      if (shape == nullptr || shape->size() != result->size()) {
        return {};
      }
      const Size& size = (*shape)[static_cast<size_t>(d)];
      if (d == dim && !size.is_constant()) {
        break;
      }
      axis.operands[i] = {d, {}};
      if (d == dim) {
        blocks.push_back(size.constant());
        axis.operands[i].blocks = {blocks.back()};
      }
    }
    axis.results[0] = {d, d == dim ? shortest_period(blocks) : blocks};
    if (axis.operands.size() == op.num_operands() && divisible((*result)[static_cast<size_t>(d)])) {
      axes.push_back(std::move(axis));
    }
  }
  return axes;
}

std::vector<OpAxis> repeat_interleave_axes(const OpView& op) {
  const Shape* shape = op.operand_shape(0);
  const Shape* result = op.result_shape(0);
  if (shape == nullptr || result == nullptr || op.is_none(2)) {
    return {};
  }
  const int dim = wrap_dim(op.integer(2, 0), shape->size());
  std::vector<OpAxis> axes = other_dims(op, dim);
  const Size& from = (*shape)[static_cast<size_t>(dim)];
  const Size& to = (*result)[static_cast<size_t>(dim)];
  if (from.is_constant() && to.is_constant() && op.is_none(3)) {
    OpAxis axis;
    axis.operands[0] = {dim, {from.constant()}};
    axis.results[0] = {dim, {to.constant()}};
    axes.push_back(std::move(axis));
  }
  return axes;
}

}  // namespace shardpipe::tensor
