#include "checkpoint/convert.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "checkpoint/resident.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

// Large enough for all threads, small beside the memory of a model.
constexpr int64_t kBlockBytes = 16 << 20;

}  // namespace

at::Tensor to_run_dtype(
    const at::Tensor& view, c10::ScalarType dtype, const MappedFile& file, const std::string& name) {
  if (view.scalar_type() == dtype) {
    return view;
  }
  if (view.scalar_type() == c10::ScalarType::Float4_e2m1fn_x2) {
    throw_input(
        "cannot convert tensor {} in {} from packed F4 to {}", in_quotes(name), file.path().string(),
        c10::toString(dtype));
  }
  if (!at::isFloatingType(view.scalar_type())) {
    return view;
  }
  if (view.numel() == 0) {
    return at::empty({0}, at::TensorOptions().dtype(dtype)).view(view.sizes());
  }
  at::Tensor result = at::empty(view.sizes(), at::TensorOptions().dtype(dtype));
  // A contiguous tensor is cut anywhere, a slice of columns between rows.
  const at::Tensor source = view.is_contiguous() ? view.view({-1}) : view;
  const at::Tensor target = view.is_contiguous() ? result.view({-1}) : result;
  const int64_t row_bytes = std::max<int64_t>(1, source.stride(0) * source.element_size());
  const int64_t block_rows = std::max<int64_t>(1, kBlockBytes / row_bytes);
  // A slice's last row ends before its stride does: what follows is another tensor's, and of a copy-on-write mapping it
  // may hold what was written.
  int64_t last = 0;
  for (int64_t dim = 0; dim < view.dim(); ++dim) {
    last += (view.size(dim) - 1) * view.stride(dim);
  }
  const int64_t view_bytes = (last + 1) * view.element_size();
  for (int64_t row = 0; row < source.size(0); row += block_rows) {
    const int64_t rows = std::min(block_rows, source.size(0) - row);
    const at::Tensor block = source.narrow(0, row, rows);
    target.narrow(0, row, rows).copy_(block);
    const int64_t block_bytes = std::clamp<int64_t>(view_bytes - row * row_bytes, 0, rows * row_bytes);
    release_pages(file, block.const_data_ptr(), static_cast<size_t>(block_bytes));
  }
  return result;
}

}  // namespace shardpipe::checkpoint
