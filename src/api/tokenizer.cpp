#include "shardpipe/tokenizer.h"

#include "base/error.h"
#include "base/json.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace shardpipe {

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) {
  Tokenizer tokenizer;
  tokenizer.impl_ = text::Tokenizer::from_folder(folder);
  return tokenizer;
}

std::vector<int64_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return impl_->encode(text, add_special_tokens);
}

std::vector<EncodedText> Tokenizer::encode_batch(
    const std::vector<std::string>& texts, const std::vector<std::string>& pairs) const {
  if (!pairs.empty() && pairs.size() != texts.size()) {
    throw_usage("{} second texts for {} texts; as many, or none, are expected", pairs.size(), texts.size());
  }
  std::vector<text::TextInput> inputs;
  for (size_t i = 0; i < texts.size(); ++i) {
    inputs.push_back({texts[i], pairs.empty() ? std::nullopt : std::optional(pairs[i])});
  }
  text::EncodeOptions options = impl_->batch_options();
  options.truncation.reset();
  std::vector<EncodedText> encoded;
  for (text::Encoding& encoding : impl_->encode_batch(inputs, options)) {
    encoded.push_back({std::move(encoding.ids), std::move(encoding.type_ids), std::move(encoding.attention_mask)});
  }
  return encoded;
}

std::string Tokenizer::decode(std::span<const int64_t> ids, bool skip_special_tokens) const {
  return impl_->decode(ids, skip_special_tokens);
}

std::string Tokenizer::chat(const std::filesystem::path& folder, const std::string& messages_json) {
  return text::ChatTemplate::from_folder(folder).apply(parse_json(messages_json, "the chat's messages"), true);
}

TokenStream::TokenStream(const Tokenizer& tokenizer) : impl_(std::make_unique<text::StreamDecoder>(tokenizer.impl_)) {}
TokenStream::~TokenStream() = default;
TokenStream::TokenStream(TokenStream&&) noexcept = default;

std::string TokenStream::push(int64_t id) {
  return impl_->push(id);
}

std::string TokenStream::finish() {
  return impl_->finish();
}

}  // namespace shardpipe
