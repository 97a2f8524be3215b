#include "kernels/meta.h"

#include <ATen/ATen.h>

#include "kernels/checks.h"

namespace shardpipe::kernels {
namespace {

at::Tensor like(const at::Tensor& x, at::IntArrayRef sizes) {
  return at::empty(sizes, x.options());
}

}  // namespace

at::Tensor meta_linear(
    const at::Tensor& x,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    int64_t /*few_rows*/,
    std::string_view many) {
  check_linear("linear", x, weight, bias);
  check_many("linear", many);
  return like(x, with_last_size(x, weight.size(0)));
}

std::vector<at::Tensor> meta_linear_group(
    const at::Tensor& x,
    at::TensorList weights,
    const c10::List<std::optional<at::Tensor>>& biases,
    int64_t /*few_rows*/,
    std::string_view many) {
  check_linear_group(x, weights, biases);
  check_many("linear_group", many);
  std::vector<at::Tensor> outputs;
  for (const at::Tensor& weight : weights) {
    outputs.push_back(like(x, with_last_size(x, weight.size(0))));
  }
  return outputs;
}

at::Tensor meta_linear_gated(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const std::optional<at::Tensor>& gate_bias,
    const std::optional<at::Tensor>& up_bias,
    std::string_view activation,
    int64_t /*few_rows*/,
    std::string_view many) {
  parse_activation(activation);
  check_linear_gated(x, gate, up, gate_bias, up_bias);
  check_many("linear_gated", many);
  return like(x, with_last_size(x, gate.size(0)));
}

at::Tensor meta_rms_norm(const at::Tensor& x, const at::Tensor& weight, double /*eps*/) {
  check_rms_norm("rms_norm", x, nullptr, weight);
  return at::empty(x.sizes(), x.options().dtype(c10::promoteTypes(x.scalar_type(), weight.scalar_type())));
}

std::tuple<at::Tensor, at::Tensor> meta_add_rms_norm(
    const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) {
  check_rms_norm("add_rms_norm", x, &residual, weight);
  return {like(x, x.sizes()), meta_rms_norm(x, weight, eps)};
}

at::Tensor meta_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  check_rotary("rotary", x, cos, sin);
  return like(x, x.sizes());
}

at::Tensor meta_cached_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& positions,
    double /*scale*/,
    std::optional<int64_t> window,
    const std::optional<at::Tensor>& slopes,
    const std::optional<at::Tensor>& bias,
    const std::optional<at::Tensor>& bias_rows) {
  check_cached_attention("cached_attention", q, k, v, k_cache, v_cache, slots, positions, window, slopes);
  check_bias("cached_attention", q, bias, bias_rows);
  return like(q, {q.size(0), q.size(1) * q.size(2)});
}

at::Tensor meta_cross_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& source_slots,
    const at::Tensor& source_positions,
    const at::Tensor& lengths,
    double /*scale*/) {
  check_cross_attention("cross_attention", q, k, v, k_cache, v_cache, slots, source_slots, source_positions, lengths);
  return like(q, {q.size(0), q.size(1) * q.size(2)});
}

at::Tensor meta_sequence_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& slots,
    double /*scale*/,
    const std::optional<at::Tensor>& bias,
    const std::optional<at::Tensor>& bias_rows) {
  check_sequence_attention("sequence_attention", q, k, v, slots);
  check_bias("sequence_attention", q, bias, bias_rows);
  return like(q, {q.size(0), q.size(1) * q.size(2)});
}

}  // namespace shardpipe::kernels
