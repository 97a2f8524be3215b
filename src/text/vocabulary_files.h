#pragma once

#include <filesystem>

#include "text/tokenizer_file.h"

namespace shardpipe::text {

/// The tokenizer of a folder without tokenizer.json, as far as its files say: vocab.txt (WordPiece) or vocab.json with
/// merges.txt (byte-level BPE). What is around the model comes from the tokenizer's class. Throws Error(usage) when
/// there are no such files, Error(input) when they are damaged.
TokenizerFile read_vocabulary_files(const std::filesystem::path& folder);

}  // namespace shardpipe::text
