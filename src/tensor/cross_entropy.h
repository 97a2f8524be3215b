#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace shardpipe::tensor {

/// Cross entropy of logits of which this part has the classes of its piece, as aten::cross_entropy_loss without class
/// weights and label smoothing: x [classes] or [rows, classes, ..] by part, target int64 without the dimension of the
/// classes, `classes` of all parts divided as `units` say, reduction 0 (none), 1 (mean of what is not ignored) or 2
/// (sum). Two numbers a row are summed and one is gathered; no part has all logits. The result is the same on every
/// part; so is its gradient, and x's is this part's piece. Half types are computed in float32.
at::Tensor cross_entropy_part(
    const at::Tensor& x,
    const at::Tensor& target,
    int64_t classes,
    at::IntArrayRef units,
    int64_t reduction,
    int64_t ignore_index,
    std::string_view axis);

}  // namespace shardpipe::tensor
