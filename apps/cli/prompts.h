#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shardpipe/tokenizer.h"

namespace shardpipe::cli {

/// Where prompts come from: exactly one of the three.
struct PromptOptions {
  std::vector<std::string> prompts;
  std::string file;       ///< one prompt a line
  std::string input_ids;  ///< safetensors: int64 input_ids [rows, length], optional attention_mask of the same shape
  bool chat = false;      ///< each prompt is a user's message
};

struct Prompts {
  std::vector<std::string> texts;  ///< empty for input_ids
  std::vector<std::vector<int64_t>> ids;
};

/// Throws Error(usage) unless exactly one source is given.
void check(const PromptOptions& options);

/// Reads and tokenises. `folder`: where the tokenizer is; `tokenizer`: null only when --input-ids is given. Throws
/// Error(input) when a file cannot be read, Error(usage) when it holds no prompt.
Prompts read_prompts(const PromptOptions& options, const std::string& folder, const Tokenizer* tokenizer);

}  // namespace shardpipe::cli
