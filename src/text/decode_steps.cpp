#include "text/decode_steps.h"

#include "text/byte_level.h"
#include "text/pattern_field.h"
#include "text/utf8.h"

namespace shardpipe::text {

void SpaceStep::text(std::string_view part) {
  if (!first_ && !inside_) {
    next_.text(" ");
  }
  inside_ = true;
  next_.text(part);
}

void SpaceStep::end_token() {
  text("");
  first_ = false;
  inside_ = false;
}

void SpaceStep::finish() {
  next_.end_token();
  next_.finish();
}

void FuseStep::finish() {
  next_.end_token();
  next_.finish();
}

void ByteLevelStep::end_token() {
  bytes_ += chars_to_bytes(token_);
  token_.clear();
  emit(false);
}

void ByteLevelStep::emit(bool last) {
  std::string out;
  bytes_.erase(0, append_lossy(out, bytes_, last));
  next_.text(out);
}

void ByteLevelStep::finish() {
  emit(true);
  next_.end_token();
  next_.finish();
}

namespace {

// The byte that a token like "<0x0A>" stands for, or -1. Rust's from_str_radix takes a sign.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') {
    return -1;
  }
  int value = 0;
  for (size_t i = token[3] == '+' ? 4 : 3; i < 5; ++i) {
    const char c = token[i];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) {
      return -1;
    }
    value = value * 16 + digit;
  }
  return value;
}

}  // namespace

void ByteFallbackStep::flush() {
  if (bytes_.empty()) {
    return;
  }
  if (is_valid_utf8(bytes_)) {
    next_.text(bytes_);
    next_.end_token();
  } else {
    for (size_t i = 0; i < bytes_.size(); ++i) {
      next_.text("\xEF\xBF\xBD");
      next_.end_token();
    }
  }
  bytes_.clear();
}

void ByteFallbackStep::end_token() {
  const int byte = fallback_byte(token_);
  if (byte >= 0) {
    bytes_.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
  } else {
    flush();
    next_.text(token_);
    next_.end_token();
  }
  token_.clear();
}

void ByteFallbackStep::finish() {
  flush();
  next_.finish();
}

void ReplaceStep::end_token() {
  next_.text(replace_all(pattern_, token_, content_));
  next_.end_token();
  token_.clear();
}

std::string_view StripStep::strip_start(std::string_view part) {
  while (!begun_ && !part.empty()) {
    if (stripped_ == start_ || !part.starts_with(content_)) {
      begun_ = true;
      break;
    }
    part.remove_prefix(content_.size());
    ++stripped_;
  }
  return part;
}

void StripStep::text(std::string_view part) {
  const std::string_view rest = strip_start(part);
  if (stop_ == 0) {
    next_.text(rest);
  } else {
    token_ += rest;
  }
}

void StripStep::end_token() {
  for (size_t i = 0; i < stop_ && token_.ends_with(content_); ++i) {
    token_.resize(token_.size() - content_.size());
  }
  next_.text(token_);
  next_.end_token();
  token_.clear();
  stripped_ = 0;
  begun_ = false;
}

}  // namespace shardpipe::text
