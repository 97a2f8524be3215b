#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "text/added_vocabulary.h"
#include "text/decoder.h"
#include "text/hf_folder.h"
#include "text/length.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_file.h"

namespace shardpipe::text {

/// What a tokenizer is made of, in the order of encoding.
struct Tokenizer::Parts {
  AddedVocabulary added;
  std::unique_ptr<const Normalizer> normalizer;       // null: none
  std::unique_ptr<const PreTokenizer> pre_tokenizer;  // null: none
  std::unique_ptr<const Model> model;                 // never null
  std::optional<Truncation> truncation;
  std::unique_ptr<const PostProcessor> post_processor;  // null: none
  std::optional<Padding> padding;
  std::optional<Truncation> batch_truncation;  // of batch_options()
  std::optional<Padding> batch_padding;
  bool unpadded_folder = false;            // a folder without padding token
  std::unique_ptr<const Decoder> decoder;  // never null

  /// Makes every part that the file describes, without its added tokens.
  explicit Parts(TokenizerFile& file);

  /// Takes what a folder's other files say, after their tokens were added.
  void apply(const HfFolder& settings);

  std::optional<std::string_view> token(int64_t id) const;
  /// The ids of a text without what is put around it.
  std::vector<int64_t> tokenize(std::string_view utf8) const;
  /// The ids of one text or of both of a pair, cut and with special tokens, not padded.
  Encoding encode(const TextInput& input, bool add_special_tokens, const std::optional<Truncation>& truncation) const;
};

/// The "added_tokens" of a file in their order. Throws Error(input).
std::vector<AddedToken> added_tokens(const TokenizerFile& file);

}  // namespace shardpipe::text
