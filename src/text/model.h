#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_file.h"

namespace shardpipe::text {

/// Turns one piece of text into ids.
class Model {
 public:
  virtual ~Model() = default;
  /// Appends the ids of a piece. Throws Error(input) when the file lacks what the piece needs (the unknown token).
  virtual void tokenize(std::string_view piece, std::vector<int64_t>& ids) const = 0;
  virtual std::optional<uint32_t> token_to_id(std::string_view token) const = 0;
  virtual std::optional<std::string_view> id_to_token(int64_t id) const = 0;
  /// Number of tokens, not of ids: a table may have holes.
  virtual size_t size() const = 0;
};

/// The model that the file's "model" describes; takes the file's vocabulary and merges. Throws Error(usage) for a type
/// or option that is not supported, Error(input) for bad fields.
std::unique_ptr<const Model> make_model(TokenizerFile& file);

}  // namespace shardpipe::text
