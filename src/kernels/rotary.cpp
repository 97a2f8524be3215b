// rotary: one sweep over the heads of each token.
#include <ATen/ATen.h>

#include "kernels/checks.h"
#include "kernels/ops.h"
#include "kernels/parallel.h"
#include "kernels/reference.h"

namespace shardpipe::kernels {

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  check_rotary("rotary", x, cos, sin);
  if (!has_own_kernel(x)) {
    return rotary_reference(x, cos, sin);
  }
  const int64_t heads = x.size(-2);
  const int64_t head_dim = x.size(-1);
  const int64_t rows = cos.size(0);
  const int64_t half = cos.size(1);
  const at::Tensor dense = x.stride(-1) == 1 || head_dim == 1 ? x : x.contiguous();
  const at::Tensor source = x.dim() == 3 ? dense : dense.flatten(0, -3);
  const at::Tensor cos_rows = cos.contiguous();
  const at::Tensor sin_rows = sin.contiguous();
  at::Tensor out = at::empty(x.sizes(), x.options());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto& table = kernel_table<T>();
    const T* from = source.const_data_ptr<T>();
    const float* c = cos_rows.const_data_ptr<float>();
    const float* s = sin_rows.const_data_ptr<float>();
    T* to = out.mutable_data_ptr<T>();
    const int64_t work = x.numel() * static_cast<int64_t>(sizeof(T));
    parallel_ranges(source.size(0), work, [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        const int64_t angle = token % rows * half;
        for (int64_t head = 0; head < heads; ++head) {
          const T* row = from + token * source.stride(0) + head * source.stride(1);
          T* out_row = to + (token * heads + head) * head_dim;
          table.rotary(row, c + angle, s + angle, out_row, half);
          std::copy(row + 2 * half, row + head_dim, out_row + 2 * half);
        }
      }
    });
  });
  return out;
}

}  // namespace shardpipe::kernels
