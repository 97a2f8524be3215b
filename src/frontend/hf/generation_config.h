#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "frontend/hf/config.h"

namespace shardpipe::hf {

/// When beam search may end (transformers' early_stopping: false, true, "never").
enum class EarlyStopping { heuristic, enough_candidates, never };

/// What a model folder says about generation. Absent: the file does not say. Types are checked here; whether the values
/// make sense together is checked by who uses them.
struct GenerationDefaults {
  std::vector<int64_t> eos_token_ids;  ///< any of them ends a row; empty: none does
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> pad_token_id;
  std::optional<int64_t> decoder_start_token_id;  ///< of encoder-decoders, where there is none the begin token
  std::optional<int64_t> max_length;              ///< tokens, prompt included
  std::optional<int64_t> max_new_tokens;
  std::optional<int64_t> min_length;  ///< tokens, prompt included
  std::optional<int64_t> min_new_tokens;
  std::optional<bool> do_sample;
  std::optional<int64_t> num_beams;
  std::optional<int64_t> num_return_sequences;
  std::optional<EarlyStopping> early_stopping;
  std::optional<double> length_penalty;
  std::optional<int64_t> no_repeat_ngram_size;
  std::optional<double> repetition_penalty;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  /// Keys with values that change what transformers generates and that Shardpipe has no option for, as
  /// "suppress_tokens = [1, 2]": generation must refuse them rather than give other tokens.
  std::vector<std::string> unsupported;
};

/// Reads generation_config.json of the folder, where there is one. The end, begin and padding tokens are those of
/// generation_config.json, else those of config.json (null: none), else the family's. Throws Error(input) as Config.
GenerationDefaults read_generation_defaults(
    const std::filesystem::path& folder, const Config& config, std::optional<int64_t> family_eos);

}  // namespace shardpipe::hf
