#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "checkpoint/folder.h"
#include "frontend/hf/config.h"
#include "frontend/hf/decoder.h"
#include "frontend/hf/encoder.h"
#include "frontend/hf/encoder_decoder.h"

namespace shardpipe::hf {

/// The end of names in the graph, and what some checkpoints call it.
struct OtherName {
  std::string_view suffix;
  std::string_view other;
};

/// A model family: one file with a module, and its row in families().
struct Family {
  std::string_view model_type;                      ///< as in config.json
  std::span<const std::string_view> architectures;  ///< Hugging Face classes that the module stands for
  /// The generation program's module; null: the family does not generate.
  std::shared_ptr<Decoder> (*build)(const Config& config, at::ScalarType dtype, bool tied) = nullptr;
  /// The module of the plain forward pass, where it is not the decoder's. `weights` may be null.
  std::shared_ptr<ForwardModel> (*build_forward)(
      const Config& config, at::ScalarType dtype, bool tied, const checkpoint::Checkpoint* weights) = nullptr;
  /// Of encoder-decoders, instead of both: the module of the two programs.
  std::shared_ptr<EncoderDecoder> (*build_encoder_decoder)(
      const Config& config, at::ScalarType dtype, bool tied, const checkpoint::Checkpoint* weights) = nullptr;
  std::string_view base_prefix;               ///< names of a bare base model's checkpoint lack it: "model."
  std::string_view embedding;                 ///< name of the token embedding's weight …
  std::string_view head;                      ///< … and of the head's, which may be tied to it
  std::span<const std::string_view> ignored;  ///< surplus names of checkpoints: NameRules::ignored
  std::span<const OtherName> other_names = {};
  /// Keys that other families refuse and this one reads.
  std::span<const std::string_view> reads = {};
  bool tied_by_default = false;                       ///< where config.json has no tie_word_embeddings
  std::optional<int64_t> default_eos = std::nullopt;  ///< where no file has eos_token_id
};

/// All families.
std::span<const Family> families();

/// The family of a config.json, by "model_type", else by "architectures". Throws Error(usage) listing the known ones
/// when the type or every architecture is unknown, and for keys that ask for something the families do not do: naming
/// key and value.
const Family& find_family(const Config& config);

/// The rows, each defined in its family's file.
extern const Family kBert;
extern const Family kBloom;
extern const Family kCodegen;
extern const Family kGpt2;
extern const Family kGptNeo;
extern const Family kLlama;
extern const Family kMistral;
extern const Family kOpt;
extern const Family kQwen2;
extern const Family kT5;

}  // namespace shardpipe::hf
