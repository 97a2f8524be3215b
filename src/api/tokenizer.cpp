#include "shardpipe/tokenizer.h"

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
