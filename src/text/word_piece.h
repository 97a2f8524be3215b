#pragma once

#include <string>

#include "text/fields.h"
#include "text/model.h"

namespace shardpipe::text {

/// BERT's model (https://arxiv.org/abs/1609.08144): the longest token that a word starts with, again and again. A word
/// that does not come out even, or is too long, is the unknown token.
class WordPiece : public Model {
 public:
  /// Takes the file's vocabulary. Throws Error(input).
  WordPiece(const Fields& fields, TokenizerFile& file);

  void tokenize(std::string_view piece, std::vector<int64_t>& ids) const override;
  std::optional<uint32_t> token_to_id(std::string_view token) const override { return vocabulary_.find(token); }
  std::optional<std::string_view> id_to_token(int64_t id) const override { return vocabulary_.token(id); }
  size_t size() const override { return vocabulary_.size(); }

 private:
  bool find_parts(std::string_view word, std::vector<int64_t>& ids) const;

  std::string where_;
  Vocabulary vocabulary_;
  std::string unknown_;
  std::string prefix_;  // of every token but a word's first
  uint64_t max_chars_;  // of a word
};

}  // namespace shardpipe::text
