#include "frontend/hf/encoder_decoder.h"

#include <utility>

namespace shardpipe::hf {

PackedStep::PackedStep(const std::vector<at::Tensor>& inputs, std::vector<at::Tensor> states)
    : source_ids(inputs[4]),
      tokens{inputs[0], inputs[1], inputs[3]},
      slots_(inputs[2]),
      source_positions_(inputs[5]),
      source_slots_(inputs[6]),
      source_lengths_(inputs[7]),
      states_(std::move(states)) {}

at::Tensor PackedStep::among_source(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, const RelativeBias& bias) const {
  return sequence_attention(q, k, v, source_slots_, scale, bias);
}

at::Tensor PackedStep::to_past(
    int64_t layer,
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    double scale,
    const RelativeBias& bias) const {
  const auto index = 4 * static_cast<size_t>(layer);
  return cached_attention(
      q, k, v, states_[index], states_[index + 1], slots_, tokens.positions, {.scale = scale, .bias = bias});
}

at::Tensor PackedStep::to_source(
    int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) const {
  const auto index = 4 * static_cast<size_t>(layer) + 2;
  return cross_attention(
      q, k, v, states_[index], states_[index + 1], slots_, source_slots_, source_positions_, source_lengths_, scale);
}

trace::Program generation_program(const std::shared_ptr<EncoderDecoder>& model, at::ScalarType dtype) {
  using graph::Size;
  const graph::Shape tokens = {Size::symbol("tokens")};
  const graph::Shape sources = {Size::symbol("sources")};
  trace::Program program;
  program.inputs = {{"input_ids", at::kLong, tokens},     {"positions", at::kLong, tokens},
                    {"slots", at::kLong, tokens},         {"selected", at::kLong, {Size::symbol("outputs")}},
                    {"source_ids", at::kLong, sources},   {"source_positions", at::kLong, sources},
                    {"source_slots", at::kLong, sources}, {"source_lengths", at::kLong, {Size::symbol("slots")}}};
  const auto add_caches = [&](const std::string& path, const char* capacity) {
    const graph::Shape shape = {Size::symbol("slots"), model->heads, Size::symbol(capacity), model->head_dim};
    program.states.push_back({path + ".k_cache", dtype, shape});
    program.states.push_back({path + ".v_cache", dtype, shape});
  };
  for (const DecoderCaches& layer : model->caches) {
    add_caches(layer.self_path, "capacity");
    add_caches(layer.cross_path, "source_capacity");
  }
  add_tensors(*model, program);
  program.forward = [model](const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& states) {
    return trace::NamedOutputs{{"logits", model->generate(PackedStep(inputs, states))}};
  };
  return program;
}

}  // namespace shardpipe::hf
