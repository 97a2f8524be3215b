// rms_norm and add_rms_norm: one sweep a row.
#include <ATen/ATen.h>

#include "kernels/checks.h"
#include "kernels/ops.h"
#include "kernels/parallel.h"
#include "kernels/reference.h"

namespace shardpipe::kernels {
namespace {

// Our kernel multiplies by a weight of x's dtype; another dtype promotes the result, which the reference form does.
bool runs_here(const at::Tensor& x, const at::Tensor& weight) {
  return has_own_kernel(x) && weight.scalar_type() == x.scalar_type() && x.numel() > 0;
}

// residual and sum may be undefined.
void norm_rows(
    const at::Tensor& x,
    const at::Tensor& residual,
    const at::Tensor& weight,
    double eps,
    const at::Tensor& sum,
    const at::Tensor& out) {
  const int64_t hidden = x.size(-1);
  const int64_t rows = x.numel() / hidden;
  const at::Tensor scale = weight.contiguous();
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto& table = kernel_table<T>();
    const T* from = x.const_data_ptr<T>();
    const T* add = residual.defined() ? residual.const_data_ptr<T>() : nullptr;
    T* added = sum.defined() ? sum.mutable_data_ptr<T>() : nullptr;
    T* to = out.mutable_data_ptr<T>();
    const T* factors = scale.const_data_ptr<T>();
    parallel_ranges(rows, x.numel() * static_cast<int64_t>(sizeof(T)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at_row = r * hidden;
        table.rms_norm(
            from + at_row, add == nullptr ? nullptr : add + at_row, factors, static_cast<float>(eps),
            added == nullptr ? nullptr : added + at_row, to + at_row, hidden);
      }
    });
  });
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_rms_norm("rms_norm", x, nullptr, weight);
  if (!runs_here(x, weight)) {
    return rms_norm_reference(x, weight, eps);
  }
  at::Tensor out = at::empty(x.sizes(), x.options());
  norm_rows(x.contiguous(), {}, weight, eps, {}, out);
  return out;
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm(
    const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) {
  check_rms_norm("add_rms_norm", x, &residual, weight);
  if (!runs_here(x, weight)) {
    return add_rms_norm_reference(x, residual, weight, eps);
  }
  at::Tensor sum = at::empty(x.sizes(), x.options());
  at::Tensor out = at::empty(x.sizes(), x.options());
  norm_rows(x.contiguous(), residual.contiguous(), weight, eps, sum, out);
  return {sum, out};
}

}  // namespace shardpipe::kernels
