#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shardpipe/options.h"

namespace shardpipe::generation {

/// What every rank of a job needs to know to generate: made by rank 0, broadcast.
struct Request {
  std::vector<std::vector<int64_t>> prompts;  ///< token ids, none empty; of an encoder-decoder the encoder's
  std::optional<int64_t> decoder_start;       ///< of an encoder-decoder: the token that its decoder starts with
  GenerateOptions options;
  int lanes = 1;                 ///< microbatches of a replica, fewer where it has fewer prompts: 1 to prompts.size()
  std::string tokenizer_folder;  ///< for stop texts; empty = none
};

std::string serialize(const Request& request);
Request parse_request(std::string_view text);

/// "length", "eos", "stop"; "" for none.
const char* to_string(FinishReason reason);

}  // namespace shardpipe::generation
