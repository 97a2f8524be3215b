#pragma once

// What the families of decoder-only language models share: their programs. Legend: "..." stands for the leading
// dimensions of a program's tokens, [tokens] where they are packed and [batch, seq] where they are not.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "frontend/hf/layers.h"
#include "frontend/trace/trace.h"

namespace shardpipe::hf {

/// The tokens of one call.
struct Tokens {
  at::Tensor input_ids;  ///< int64 [...]
  at::Tensor positions;  ///< int64 [...] or [seq]: where in its row each token stands, from 0
  at::Tensor selected;   ///< int64 [outputs]: indices of the packed tokens whose logits are wanted; undefined: all

  /// x [..., features], of the wanted tokens only: [outputs, features].
  at::Tensor select(const at::Tensor& x) const { return selected.defined() ? x.index_select(0, selected) : x; }
};

/// How the tokens of a program attend to each other: the one part of a model that a program decides.
class Attention {
 public:
  virtual ~Attention() = default;
  /// q [..., heads, head_dim], k and v [..., kv_heads, head_dim]; returns [..., heads * head_dim]. Causal, and as the
  /// layer's entry in Decoder::attention_layers says.
  virtual at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) = 0;
};

/// What a layer does to its scores.
struct AttentionLayer {
  std::string path;                              ///< whose cache it is: "model.layers.3.self_attn"
  double scale = 1.0;                            ///< of q k^T
  std::optional<int64_t> window = std::nullopt;  ///< a token attends to so many positions, the last its own
};

/// A decoder-only language model: a family's whole module.
class Decoder : public ScopedModule {
 public:
  using ScopedModule::ScopedModule;

  /// Logits [..., vocab_size], or [outputs, vocab_size] where tokens.selected asks, in the run dtype.
  virtual at::Tensor forward(const Tokens& tokens, Attention& attention) = 0;

  std::vector<AttentionLayer> attention_layers;
  /// ALiBi: float32 [heads], a buffer of the module; undefined where the scores have no bias.
  at::Tensor slopes;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;           ///< that the model was made for
  bool bounded_positions = false;      ///< whether no position from max_positions on can be computed
  bool positions_follow_mask = false;  ///< whether an attention mask moves the positions of the tokens behind it
};

/// out_proj of the attention of q_proj, k_proj and v_proj, with as many K/V heads as heads and no more to it.
class SelfAttention : public ScopedModule {
 public:
  struct Sizes {
    int64_t hidden;
    int64_t head_dim;
    bool qkv_bias;
    bool out_bias;
  };
  SelfAttention(std::string class_name, const Sizes& sizes, int64_t layer, at::ScalarType dtype);
  at::Tensor forward(const at::Tensor& x, Attention& attention) const;

 private:
  int64_t layer_;
  int64_t head_dim_;
  std::shared_ptr<Linear> k_proj_;
  std::shared_ptr<Linear> v_proj_;
  std::shared_ptr<Linear> q_proj_;
  std::shared_ptr<Linear> out_proj_;
};

/// The head of a language model: what it reads, and what it may share with the embedding.
struct Head {
  int64_t features;
  int64_t vocab_size;
  bool tied;
  bool bias = false;
};

/// A base model, which returns hidden states, and a linear head. `Base` has forward(tokens, attention) and embedding().
template <typename Base>
class CausalModel : public Decoder {
 public:
  /// `base_path`: the base model's name in the checkpoint; `arguments`: its constructor's.
  template <typename... Arguments>
  CausalModel(
      std::string class_name,
      const std::string& base_path,
      const Head& head,
      at::ScalarType dtype,
      Arguments&&... arguments)
      : Decoder(std::move(class_name)),
        base_(child<Base>(base_path, std::forward<Arguments>(arguments)...)),
        lm_head_(
            head.tied ? child<Linear>("lm_head", base_->embedding(), head.bias)
                      : child<Linear>("lm_head", head.features, head.vocab_size, head.bias, dtype)) {
    vocab_size = head.vocab_size;
  }

  at::Tensor forward(const Tokens& tokens, Attention& attention) override {
    return lm_head_->forward(base_->forward(tokens, attention));
  }

  const Base& base() const { return *base_; }

 private:
  std::shared_ptr<Base> base_;
  std::shared_ptr<Linear> lm_head_;
};

/// Gives the program the module's parameters and buffers.
void add_tensors(const torch::nn::Module& model, trace::Program& program);

/// The packed generation program: the tokens of several rows one after the other, without padding. Inputs, int64:
/// input_ids, positions and slots (the cache row of each token) [tokens], selected [outputs]; the tokens of a row are
/// contiguous and their positions ascend. Per-sequence states "<attention path>.k_cache" and ".v_cache" [slots,
/// kv_heads, capacity, head_dim]; output "logits" [outputs, vocab_size].
trace::Program generation_program(const std::shared_ptr<Decoder>& decoder, at::ScalarType dtype);

/// The plain program, of operators that have gradients: input_ids int64 [batch, seq] and, where `with_mask`,
/// attention_mask int64 [batch, seq] (0 = padding); output "logits" [batch, seq, vocab_size], as transformers'
/// forward() gives them. Logits of padding are finite and mean nothing.
trace::Program forward_program(const std::shared_ptr<Decoder>& decoder, at::ScalarType dtype, bool with_mask);

/// hidden / heads. Throws Error(input) naming `hidden_key` unless it divides.
int64_t head_size(const Config& config, Key hidden_key, int64_t hidden, int64_t heads);

/// x [..., heads * head_dim] -> [..., heads, head_dim].
at::Tensor split_heads(const at::Tensor& x, int64_t head_dim);

}  // namespace shardpipe::hf
