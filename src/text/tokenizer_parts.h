#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "text/added_vocabulary.h"
#include "text/decoder.h"
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
  std::unique_ptr<const Decoder> decoder;  // never null

  /// Makes every part that the file describes, without its added tokens.
  explicit Parts(TokenizerFile& file);

  std::optional<std::string_view> token(int64_t id) const;
  void tokenize(std::vector<Piece>& pieces, Encoding& ids) const;
};

/// The "added_tokens" of a file in their order. Throws Error(input).
std::vector<AddedToken> added_tokens(const TokenizerFile& file);

}  // namespace shardpipe::text
