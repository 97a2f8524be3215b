#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/fields.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/regex.h"
#include "text/token_trie.h"

namespace shardpipe::text {

/// A token on top of the model's vocabulary, found in the text before the model sees it.
struct AddedToken {
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the whitespace on its left
  bool rstrip = false;       // and on its right
  bool normalized = true;    // its normalized form is looked for in the normalized text
  bool special = false;      // left out when decoding with skip_special_tokens

  bool operator==(const AddedToken&) const = default;
};

/// The flags of an entry of "added_tokens". Throws Error(input).
AddedToken added_token(const Fields& fields);

/// The added tokens of a tokenizer, as the package's AddedVocabulary.
class AddedVocabulary {
 public:
  /// Adds the tokens in order. A token that the model or an earlier call knows keeps that id, a new one gets the next
  /// free one; flags are those given last. Of tokens that look the same once normalized the lowest id is found (the
  /// package picks one at random). `normalizer` may be null.
  void add(const std::vector<AddedToken>& tokens, const Model& model, const Normalizer* normalizer);

  /// With this set, special tokens written in a text are ordinary text.
  void set_split_special_tokens(bool value) { split_special_tokens_ = value; }

  /// Finds the tokens in a text (valid UTF-8) and normalizes what is between them.
  std::vector<Piece> split(const std::string& text, const Normalizer* normalizer) const;

  std::optional<uint32_t> find(std::string_view token) const;
  /// The form of a token that decoding starts from (normalized, where normalizing changed it).
  std::optional<std::string_view> token(int64_t id) const;
  bool is_special(std::string_view token) const;
  /// The number of tokens that the model does not have.
  size_t new_tokens(const Model& model) const;

 private:
  void rebuild();
  bool is_single_word(std::string_view text, size_t begin, size_t end) const;
  void find_tokens(std::string text, bool start, const TokenTrie& trie, std::vector<Piece>& out) const;

  std::unordered_map<std::string, uint32_t> ids_;
  std::map<uint32_t, AddedToken> tokens_;
  std::unordered_map<uint32_t, std::string> normalized_;  // where it differs from the content
  std::unordered_set<std::string> special_;
  TokenTrie plain_;                      // looked for in the text as it is
  TokenTrie after_normalizer_;           // and in the normalized text
  std::optional<Regex> word_character_;  // there when a token is a single word
  bool split_special_tokens_ = false;
};

}  // namespace shardpipe::text
