#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/file.h"

namespace shardpipe::checkpoint {

/// Where a tensor lies in the bytes of a storage. Units: elements.
struct StridedView {
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  int64_t offset = 0;
};

/// Bytes of the tensor, and from the storage's start to its last element's end (0 for a tensor without elements).
struct ViewBytes {
  uint64_t size = 0;
  uint64_t end = 0;
};

/// nullopt when the view is impossible: something negative, other counts of extents and strides, more than kMaxDims
/// dimensions, more than 63 bits.
std::optional<ViewBytes> view_bytes(const StridedView& view, c10::ScalarType dtype);

/// The tensor over `storage`, a part of `mapping`, which it keeps alive; a copy when the storage is not aligned to an
/// element. `view_bytes(view).end` must be within it. Booleans other than 0 and 1 become 1 (a copy then).
at::Tensor map_view(
    const std::shared_ptr<const MappedFile>& mapping,
    std::span<const std::byte> storage,
    c10::ScalarType dtype,
    const StridedView& view);

}  // namespace shardpipe::checkpoint
