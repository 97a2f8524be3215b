// Mistral (transformers' modeling_mistral.py): Llama without biases, in which a token may attend to the last
// `sliding_window` positions only.
#include <array>

#include "frontend/hf/llama.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

std::shared_ptr<Decoder> build_mistral(const Config& config, at::ScalarType dtype, bool tied) {
  LlamaConfig mistral = read_llama(config, "Mistral", {.max_positions = 131'072, .kv_heads = 8}, dtype);
  mistral.windows.assign(mistral.windows.size(), read_window(config, 4096));
  return make_llama(mistral, tied);
}

constexpr std::array<std::string_view, 2> kArchitectures = {"MistralForCausalLM", "MistralModel"};
constexpr std::array<std::string_view, 1> kIgnored = {"*rotary_emb.inv_freq"};
constexpr std::array<std::string_view, 1> kReads = {"sliding_window"};

}  // namespace

const Family kMistral = {
    .model_type = "mistral",
    .architectures = kArchitectures,
    .build = build_mistral,
    .base_prefix = "model.",
    .embedding = "model.embed_tokens.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .reads = kReads,
    .tied_by_default = false,
    .default_eos = 2,
};

}  // namespace shardpipe::hf
