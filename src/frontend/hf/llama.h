#pragma once

// Llama's modules, for the families that are Llama with other biases, windows and defaults.
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "frontend/hf/decoder.h"
#include "frontend/hf/rotary.h"

namespace shardpipe::hf {

struct LlamaConfig {
  std::string name;  ///< what the names of its classes start with: "Llama"
  int64_t layers;
  int64_t hidden;
  int64_t intermediate;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t vocab;
  std::optional<int64_t> padding;  ///< the embedding's row
  int64_t max_positions;
  double eps;
  bool qkv_bias = false;
  bool out_bias = false;  ///< of the attention's output projection
  bool mlp_bias = false;
  Activation activation;
  RotaryFrequencies rotary;
  std::vector<std::optional<int64_t>> windows;  ///< of each layer; none where config.json is not asked for them
  at::ScalarType dtype;
};

/// What a family takes where config.json has no such key.
struct LlamaDefaults {
  int64_t max_positions;
  std::optional<int64_t> kv_heads = std::nullopt;  ///< none: as many as heads
};

/// The keys that all of these families have; biases and windows are the family's. Throws Error(input), Error(usage).
LlamaConfig read_llama(const Config& config, std::string name, const LlamaDefaults& defaults, at::ScalarType dtype);

/// The key "sliding_window": `fallback` where it is absent, none where it is null.
std::optional<int64_t> read_window(const Config& config, int64_t fallback);

std::shared_ptr<Decoder> make_llama(const LlamaConfig& config, bool tied);

}  // namespace shardpipe::hf
