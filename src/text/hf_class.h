#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace shardpipe::text {

/// A tokenizer class of transformers 5 that takes only vocabulary, merges and post-processor from tokenizer.json and
/// sets up the rest itself.
struct HfClass {
  const char* name;
  /// Special tokens that exist without being configured: attribute and token.
  std::vector<std::pair<const char*, const char*>> defaults;
  Json normalizer;
  /// Given `add_prefix_space` of the configuration.
  Json (*pre_tokenizer)(bool add_prefix_space);
  bool keeps_post_processor;
  /// Adds its special tokens once more, now with default flags.
  bool adds_special_tokens_again;
};

/// The class that AutoTokenizer picks, or null for the one that takes tokenizer.json as it is. `configured` is
/// "tokenizer_class" of tokenizer_config.json or config.json, `model_type` that of config.json; empty: not given.
const HfClass* find_hf_class(std::string configured, const std::string& model_type, bool has_byte_level);

}  // namespace shardpipe::text
