#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shardpipe/export.h"

namespace shardpipe {

namespace text {
class Tokenizer;
class StreamDecoder;
}  // namespace text

/// A text, or two, as a model takes them.
struct EncodedText {
  std::vector<int64_t> ids;
  std::vector<int64_t> type_ids;        ///< 0 for the first text, 1 for the second, as the tokenizer has it
  std::vector<int64_t> attention_mask;  ///< 0 for padding
};

/// A model's tokenizer.json: text to token ids and back, as the `tokenizers` package does it. A cheap value.
class SHARDPIPE_API Tokenizer {
 public:
  /// Throws Error(usage) when the folder has none or it is of a kind not supported, Error(input) when it is damaged.
  static Tokenizer from_folder(const std::filesystem::path& folder);

  /// As Hugging Face's tokenizer(text): special tokens written in the text are recognised. Bytes that are not UTF-8
  /// become U+FFFD.
  std::vector<int64_t> encode(std::string_view text, bool add_special_tokens = true) const;
  /// As transformers' tokenizer(texts, pairs, padding=True): special tokens added, all as long as the longest.
  /// `pairs`: none, or one a text. Throws Error(usage) when the folder names no padding token.
  std::vector<EncodedText> encode_batch(
      const std::vector<std::string>& texts, const std::vector<std::string>& pairs = {}) const;
  /// Nothing is stripped or cleaned up.
  std::string decode(std::span<const int64_t> ids, bool skip_special_tokens = true) const;

  /// The text of a chat: the folder's template over messages as JSON ([{"role": "user", "content": "…"}, …]), ready for
  /// the model's turn. Encode it without adding special tokens: the template writes them. Throws Error(usage) when the
  /// folder has no template.
  static std::string chat(const std::filesystem::path& folder, const std::string& messages_json);

 private:
  friend class TokenStream;
  std::shared_ptr<const text::Tokenizer> impl_;
};

/// Decodes tokens one by one; never emits half a character. The pieces together are decode() of all.
class SHARDPIPE_API TokenStream {
 public:
  explicit TokenStream(const Tokenizer& tokenizer);
  ~TokenStream();
  TokenStream(TokenStream&&) noexcept;
  std::string push(int64_t id);
  std::string finish();

 private:
  std::unique_ptr<text::StreamDecoder> impl_;
};

}  // namespace shardpipe
