#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/fields.h"

namespace shardpipe::text {

/// A tokenizer class of transformers 5 that takes only vocabulary, merges and post-processor from tokenizer.json and
/// sets up the rest itself.
struct HfClass {
  const char* name;
  /// Special tokens that exist without being configured: attribute and token.
  std::vector<std::pair<const char*, const char*>> defaults;
  /// Byte-level classes: the normalizer, and the pre-tokenizer given `add_prefix_space` of the configuration.
  Json normalizer;
  Json (*pre_tokenizer)(bool add_prefix_space);
  bool keeps_post_processor;
  /// Adds its special tokens once more, now with default flags.
  bool adds_special_tokens_again;
  /// Other classes: sets up what they replace in a tokenizer.json, given tokenizer_config.json. Null: byte-level.
  void (*set_up)(Json& file, const Fields& config) = nullptr;
  /// The post-processor where the class makes its own: attributes and texts with their types, "cls_token:0 $A:0".
  const char* single = nullptr;
  const char* pair = nullptr;
  bool pads_left = false;
  /// Whether the padding token of the tokenizer.json counts where none is configured.
  bool takes_pad_token = false;
  /// How many special tokens <extra_id_N> there are unless configured.
  uint64_t extra_ids = 0;
};

/// The class that AutoTokenizer picks, or null for the one that takes tokenizer.json as it is. `configured` is
/// "tokenizer_class" of tokenizer_config.json or config.json, `model_type` that of config.json; empty: not given.
const HfClass* find_hf_class(std::string configured, const std::string& model_type, bool has_byte_level);

}  // namespace shardpipe::text
