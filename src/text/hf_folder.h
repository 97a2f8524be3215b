#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/added_vocabulary.h"
#include "text/tokenizer_file.h"

namespace shardpipe::text {

/// A part of a post-processor: a token, or one of the texts ("$A", "$B"), and its type.
struct HfTemplatePart {
  std::string content;
  int64_t type_id;
};

/// What the other files of a folder change in its tokenizer.json when transformers 5 loads it (AutoTokenizer).
struct HfFolder {
  /// The tokens to add, call by call: each call gives free ids anew.
  std::vector<std::vector<AddedToken>> added_tokens;
  /// Special tokens written in a text are ordinary text.
  bool split_special_tokens = false;
  /// The post-processor of a class that makes its own, for one text and for two; empty: the file's.
  std::vector<HfTemplatePart> single;
  std::vector<HfTemplatePart> pair;
  /// model_max_length; 0: none.
  uint64_t max_length = 0;
  bool truncates_left = false;
  bool pads_left = false;
  std::optional<std::string> pad_token;
  int64_t pad_type_id = 0;
};

/// Reads tokenizer_config.json, config.json, special_tokens_map.json and added_tokens.json, each where it exists, and
/// rewrites the parts of `file` that the tokenizer class named there does not take from it. `add_bos_token` and
/// `add_eos_token` have no effect beside a tokenizer.json, nor has `clean_up_tokenization_spaces` on ids. Throws
/// Error(input) on files that cannot be read or bad fields.
HfFolder read_hf_folder(const std::filesystem::path& folder, TokenizerFile& file);

}  // namespace shardpipe::text
