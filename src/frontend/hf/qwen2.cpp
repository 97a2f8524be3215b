// Qwen2 (transformers' modeling_qwen2.py): Llama with biases on queries, keys and values; where "use_sliding_window" is
// true, the layers from "max_window_layers" on, or those that "layer_types" names, attend to a window.
#include <array>

#include "base/error.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/llama.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

std::vector<std::optional<int64_t>> read_windows(const Config& config, size_t layers) {
  std::optional<int64_t> window;
  if (config.boolean("use_sliding_window", false)) {
    window = read_window(config, 4096);
  }
  std::vector<std::optional<int64_t>> windows(layers);
  if (!config.has("layer_types")) {
    const int64_t full = config.integer("max_window_layers", 0, kMaxLayers, 28);
    for (size_t i = 0; i < layers; ++i) {
      windows[i] = static_cast<int64_t>(i) >= full ? window : std::nullopt;
    }
    return windows;
  }
  const std::vector<std::string> types = config.strings("layer_types");
  if (types.size() != layers) {
    throw_input("\"layer_types\" in {} has {} entries for {} layers", config.where(), types.size(), layers);
  }
  for (size_t i = 0; i < layers; ++i) {
    if (types[i] == "sliding_attention") {
      if (!window) {
        throw_input(
            "\"layer_types\" in {} asks for sliding_attention; a number under sliding_window and use_sliding_window "
            "true are expected with it",
            config.where());
      }
      windows[i] = window;
    } else if (types[i] != "full_attention") {
      throw_usage(
          "\"layer_types\" in {} has \"{}\": full_attention and sliding_attention are known", config.where(), types[i]);
    }
  }
  return windows;
}

std::shared_ptr<Decoder> build_qwen2(const Config& config, at::ScalarType dtype, bool tied) {
  LlamaConfig qwen2 = read_llama(config, "Qwen2", {.max_positions = 32'768, .kv_heads = 32}, dtype);
  qwen2.qkv_bias = true;
  qwen2.windows = read_windows(config, qwen2.windows.size());
  return make_llama(qwen2, tied);
}

constexpr std::array<std::string_view, 2> kArchitectures = {"Qwen2ForCausalLM", "Qwen2Model"};
constexpr std::array<std::string_view, 1> kIgnored = {"*rotary_emb.inv_freq"};
constexpr std::array<std::string_view, 2> kReads = {"sliding_window", "layer_types"};

}  // namespace

const Family kQwen2 = {
    .model_type = "qwen2",
    .architectures = kArchitectures,
    .build = build_qwen2,
    .base_prefix = "model.",
    .embedding = "model.embed_tokens.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .reads = kReads,
    .tied_by_default = false,
};

}  // namespace shardpipe::hf
