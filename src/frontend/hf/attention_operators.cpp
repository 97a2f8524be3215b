#include "frontend/hf/attention_operators.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include "kernels/ops.h"

namespace shardpipe::hf {
namespace {

using at::Tensor;

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

Tensor cached_attention(
    const Tensor& q,
    const Tensor& k,
    const Tensor& v,
    const Tensor& k_cache,
    const Tensor& v_cache,
    const Tensor& slots,
    const Tensor& positions,
    const ScoreShape& scores) {
  static const auto op = find<decltype(kernels::cached_attention)>("shardpipe::cached_attention_reference");
  return op.call(
      q, k, v, k_cache, v_cache, slots, positions, scores.scale, scores.window, scores.slopes, scores.bias.table,
      scores.bias.rows);
}

Tensor cross_attention(
    const Tensor& q,
    const Tensor& k,
    const Tensor& v,
    const Tensor& k_cache,
    const Tensor& v_cache,
    const Tensor& slots,
    const Tensor& source_slots,
    const Tensor& source_positions,
    const Tensor& lengths,
    double scale) {
  static const auto op = find<decltype(kernels::cross_attention)>("shardpipe::cross_attention_reference");
  return op.call(q, k, v, k_cache, v_cache, slots, source_slots, source_positions, lengths, scale);
}

Tensor sequence_attention(
    const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& slots, double scale, const RelativeBias& bias) {
  static const auto op = find<decltype(kernels::sequence_attention)>("shardpipe::sequence_attention");
  return op.call(q, k, v, slots, scale, bias.table, bias.rows);
}

}  // namespace shardpipe::hf
