#pragma once

#include <string>

#include "text/fields.h"
#include "text/model.h"

namespace shardpipe::text {

/// A token a word; words outside of the vocabulary are the unknown token.
class WordLevel : public Model {
 public:
  /// Takes the file's vocabulary. Throws Error(input).
  WordLevel(const Fields& fields, TokenizerFile& file);

  void tokenize(std::string_view piece, std::vector<int64_t>& ids) const override;
  std::optional<uint32_t> token_to_id(std::string_view token) const override { return vocabulary_.find(token); }
  std::optional<std::string_view> id_to_token(int64_t id) const override { return vocabulary_.token(id); }
  size_t size() const override { return vocabulary_.size(); }

 private:
  std::string where_;
  Vocabulary vocabulary_;
  std::string unknown_;
};

}  // namespace shardpipe::text
