#pragma once

// What encoder-decoder families share: the program that generates.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "frontend/hf/attention_operators.h"
#include "frontend/hf/decoder.h"
#include "frontend/hf/encoder.h"

namespace shardpipe::hf {

/// Where a layer of the decoder keeps keys and values: paths of its two attentions.
struct DecoderCaches {
  std::string self_path;
  std::string cross_path;
};

/// The tokens of one step of generation, packed, and how they attend to each other: q [tokens or sources, heads,
/// head_dim], k and v [.., heads, head_dim] -> [tokens or sources, heads * head_dim].
class PackedStep {
 public:
  /// In the order of generation_program()'s inputs and states.
  PackedStep(const std::vector<at::Tensor>& inputs, std::vector<at::Tensor> states);

  at::Tensor source_ids;  ///< int64 [sources]
  Tokens tokens;          ///< of the decoder

  /// In the encoder: each token of a source to all of them.
  at::Tensor among_source(
      const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, const RelativeBias& bias) const;
  /// In a layer of the decoder: to the tokens up to its own.
  at::Tensor to_past(
      int64_t layer,
      const at::Tensor& q,
      const at::Tensor& k,
      const at::Tensor& v,
      double scale,
      const RelativeBias& bias) const;
  /// In a layer of the decoder: to the source, whose keys and values come in the first step and are kept.
  at::Tensor to_source(
      int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) const;

 private:
  at::Tensor slots_;
  at::Tensor source_positions_;
  at::Tensor source_slots_;
  at::Tensor source_lengths_;
  std::vector<at::Tensor> states_;  // keys and values of self attention, then of cross attention, of each layer in turn
};

/// An encoder-decoder model: a family's whole module.
class EncoderDecoder : public ForwardModel {
 public:
  using ForwardModel::ForwardModel;

  /// Logits [outputs, vocab_size] of the wanted tokens of the decoder.
  virtual at::Tensor generate(const PackedStep& step) = 0;

  std::vector<DecoderCaches> caches;  ///< of each layer of the decoder
  int64_t heads = 0;
  int64_t head_dim = 0;
};

/// The packed generation program. The decoder's tokens are those of decoder.h's: input_ids, positions, slots [tokens],
/// selected [outputs]. The encoder's, which come with a row's first step and never again: source_ids, source_positions
/// and source_slots [sources]; source_lengths [slots]: the tokens of each row's source, in every step. States of a
/// layer: "<self path>.k_cache" and ".v_cache" [slots, heads, capacity, head_dim], and of the cross path [slots, heads,
/// source_capacity, head_dim]. Output "logits" [outputs, vocab_size].
trace::Program generation_program(const std::shared_ptr<EncoderDecoder>& model, at::ScalarType dtype);

}  // namespace shardpipe::hf
