#include "frontend/hf/decoder.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace shardpipe::hf {

at::Tensor cached_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const LayerCache& cache,
    const PackedTokens& tokens,
    double scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("shardpipe::cached_attention_reference", "")
                             .typed<at::Tensor(
                                 const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>();
  return op.call(q, k, v, cache.keys, cache.values, tokens.slots, tokens.positions, scale);
}

trace::Program generation_program(const std::shared_ptr<Decoder>& decoder, at::ScalarType dtype) {
  using graph::Size;
  const Size tokens = Size::symbol("tokens");
  trace::Program program;
  program.inputs = {
      {"input_ids", at::kLong, {tokens}},
      {"positions", at::kLong, {tokens}},
      {"slots", at::kLong, {tokens}},
      {"selected", at::kLong, {Size::symbol("outputs")}}};
  const graph::Shape cache = {Size::symbol("slots"), decoder->kv_heads, Size::symbol("capacity"), decoder->head_dim};
  for (const std::string& path : decoder->attention_paths) {
    program.states.push_back({path + ".k_cache", dtype, cache});
    program.states.push_back({path + ".v_cache", dtype, cache});
  }
  for (const auto& parameter : decoder->named_parameters()) {
    program.tensors.push_back({parameter.key(), parameter.value(), graph::ValueKind::parameter});
  }
  for (const auto& buffer : decoder->named_buffers()) {
    program.tensors.push_back({buffer.key(), buffer.value(), graph::ValueKind::buffer});
  }
  program.forward = [decoder](const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& states) {
    std::vector<LayerCache> caches;
    for (size_t i = 0; i < states.size(); i += 2) {
      caches.push_back({states[i], states[i + 1]});
    }
    return trace::NamedOutputs{{"logits", decoder->forward({inputs[0], inputs[1], inputs[2], inputs[3]}, caches)}};
  };
  return program;
}

}  // namespace shardpipe::hf
