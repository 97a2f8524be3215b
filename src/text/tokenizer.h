#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/encoding.h"
#include "text/length.h"

namespace shardpipe::text {

/// A text, or two that belong together.
struct TextInput {
  std::string text;
  std::optional<std::string> pair;
};

/// Without truncation or padding here those of the tokenizer.json apply.
struct EncodeOptions {
  bool add_special_tokens = true;
  std::optional<Truncation> truncation;
  std::optional<Padding> padding;
};

/// Text to token ids and back, as the Hugging Face tokenizers package does from the same tokenizer.json. Immutable:
/// threads may share one.
///
/// Supported: the models BPE (without dropout), WordPiece, Unigram, WordLevel and every normalizer, pre-tokenizer (but
/// UnicodeScripts), post-processor and decoder of the package. Another kind is Error(usage), a malformed file
/// Error(input).
class Tokenizer {
 public:
  /// A tokenizer.json by itself, as `tokenizers.Tokenizer.from_file`: its truncation and padding apply.
  static std::shared_ptr<const Tokenizer> from_file(const std::filesystem::path& path);

  /// A folder as `transformers.AutoTokenizer.from_pretrained` reads it: tokenizer.json with what tokenizer_config.json,
  /// special_tokens_map.json, added_tokens.json and config.json change in it; encode() is `tokenizer(text)`, which does
  /// not truncate or pad. Without tokenizer.json from vocab.txt (BERT) or vocab.json and merges.txt (GPT-2). Throws
  /// Error(usage) when the folder has none of them.
  static std::shared_ptr<const Tokenizer> from_folder(const std::filesystem::path& folder);

  ~Tokenizer();

  /// The ids of a text. Bytes that are no UTF-8 count as U+FFFD, as in Python's bytes.decode("utf-8", "replace").
  /// Throws Error(input) when the file contradicts itself on this text, Error(usage) when a pattern gives up on it.
  std::vector<int64_t> encode(std::string_view utf8, bool add_special_tokens = true) const;

  /// Texts or pairs as a batch for a model. Throws what encode() does, and Error(input) when truncation cannot do what
  /// it is asked for.
  std::vector<Encoding> encode_batch(const std::vector<TextInput>& inputs, const EncodeOptions& options = {}) const;

  /// The options of `tokenizer(texts, padding=True, truncation=True)` in transformers: cut to model_max_length, filled
  /// up to the longest. Without a folder those of the file. Throws Error(usage) when a folder names no padding token.
  EncodeOptions batch_options() const;

  /// The text of ids, always valid UTF-8. Ids that name no token are left out.
  std::string decode(std::span<const int64_t> ids, bool skip_special_tokens = true) const;

  std::optional<int64_t> token_to_id(std::string_view token) const;
  /// The token as the model has it (a space is "Ġ" in byte-level vocabularies).
  std::optional<std::string> id_to_token(int64_t id) const;
  /// Number of tokens, added ones included; ids may reach higher when the vocabulary has holes.
  int64_t vocab_size() const;
  /// Whether decode() leaves the id out when skip_special_tokens is set.
  bool is_special(int64_t id) const;

 private:
  friend class StreamDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

/// Decodes ids one by one. The texts of all push() calls and of finish() together are decode() of all ids; none of them
/// ends within a character.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  /// The text that is certain now and was not before; often empty.
  std::string push(int64_t id);
  /// The rest. No push() may follow.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shardpipe::text
