#pragma once

// What the families of decoder-only language models share: the packed generation program.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "frontend/hf/layers.h"
#include "frontend/trace/trace.h"

namespace shardpipe::hf {

/// One call of the program: tokens of several rows, packed without padding. All int64 on `meta`. The tokens of a row
/// are contiguous and their positions ascend.
struct PackedTokens {
  at::Tensor input_ids;  ///< [tokens]
  at::Tensor positions;  ///< [tokens], from 0 in each row
  at::Tensor slots;      ///< [tokens]: the cache row of each token
  at::Tensor selected;   ///< [outputs]: indices of the tokens whose logits are wanted
};

/// Keys and values of one layer, [slots, kv_heads, capacity, head_dim] each.
struct LayerCache {
  at::Tensor keys;
  at::Tensor values;
};

/// Appends k and v to the caches and attends causally: q [tokens, heads, head_dim], k and v [tokens, kv_heads,
/// head_dim]; returns [tokens, heads * head_dim].
at::Tensor cached_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const LayerCache& cache,
    const PackedTokens& tokens,
    double scale);

/// A decoder-only language model: a family's whole module.
class Decoder : public ScopedModule {
 public:
  using ScopedModule::ScopedModule;

  /// Logits [outputs, vocab_size] in the run dtype.
  virtual at::Tensor forward(const PackedTokens& tokens, const std::vector<LayerCache>& caches) = 0;

  std::vector<std::string> attention_paths;  ///< per layer: whose cache it is, "model.layers.3.self_attn"
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;       ///< that the model was made for
  bool bounded_positions = false;  ///< whether no position from max_positions on can be computed
};

/// The generation program of a decoder: inputs input_ids, positions, slots, selected; per-sequence states
/// "<attention path>.k_cache" and ".v_cache"; output "logits"; dimensions tokens, outputs, slots, capacity.
trace::Program generation_program(const std::shared_ptr<Decoder>& decoder, at::ScalarType dtype);

}  // namespace shardpipe::hf
