#include "checkpoint/strided_view.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "checkpoint/header.h"

namespace shardpipe::checkpoint {

std::optional<ViewBytes> view_bytes(const StridedView& view, c10::ScalarType dtype) {
  if (view.shape.size() != view.strides.size() || view.shape.size() > kMaxDims || view.offset < 0) {
    return std::nullopt;
  }
  int64_t elements = static_cast<int64_t>(c10::elementSize(dtype));  // counts bytes
  int64_t last = view.offset;
  bool empty = false;
  for (size_t i = 0; i < view.shape.size(); ++i) {
    int64_t step = 0;
    if (view.shape[i] < 0 || view.strides[i] < 0 ||
        __builtin_mul_overflow(elements, std::max<int64_t>(view.shape[i], 1), &elements) ||
        __builtin_mul_overflow(std::max<int64_t>(view.shape[i] - 1, 0), view.strides[i], &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return std::nullopt;
    }
    empty = empty || view.shape[i] == 0;
  }
  int64_t end = 0;
  if (__builtin_add_overflow(last, 1, &end) ||
      __builtin_mul_overflow(end, static_cast<int64_t>(c10::elementSize(dtype)), &end)) {
    return std::nullopt;
  }
  return empty ? ViewBytes{} : ViewBytes{static_cast<uint64_t>(elements), static_cast<uint64_t>(end)};
}

at::Tensor map_view(
    const std::shared_ptr<const MappedFile>& mapping,
    std::span<const std::byte> storage,
    c10::ScalarType dtype,
    const StridedView& view) {
  const auto options = at::TensorOptions().dtype(dtype);
  if (std::find(view.shape.begin(), view.shape.end(), 0) != view.shape.end()) {
    return at::empty({0}, options).view(view.shape);
  }
  const auto element_bytes = static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t whole = static_cast<int64_t>(storage.size()) / element_bytes * element_bytes;
  const bool aligned = reinterpret_cast<uintptr_t>(storage.data()) % static_cast<uintptr_t>(element_bytes) == 0;
  // from_blob takes no const pointer.
  auto* data = const_cast<std::byte*>(storage.data());
  at::Tensor flat = at::for_blob(data, {aligned ? whole / element_bytes : whole})
                        .deleter([mapping](void*) {})
                        .options(at::TensorOptions().dtype(aligned ? dtype : at::kByte).device(at::kCPU))
                        .target_device(at::kCPU)  // spares the question what kind of pointer this is
                        .make_tensor();
  if (!aligned) {
    flat = flat.clone().view(dtype);
  }
  at::Tensor result = flat.as_strided(view.shape, view.strides, view.offset);
  if (dtype == at::kBool && result.view(at::kByte).max().item<int64_t>() > 1) {
    result = result.view(at::kByte).ne(0);  // kernels rely on 0 and 1
  }
  return result;
}

}  // namespace shardpipe::checkpoint
