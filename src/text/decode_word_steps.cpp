#include "text/decode_word_steps.h"

#include <utility>

#include "text/utf8.h"

namespace shardpipe::text {
namespace {

// Rust's str::replace: an empty pattern matches before each character and at the end.
std::string replace(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text.substr(i).starts_with(pattern)) {
      out.append(content);
      i += pattern.size();
    }
    if (pattern.empty() || !text.substr(i).starts_with(pattern)) {
      const size_t length = i < text.size() ? char_length(text[i]) : 0;
      out.append(text.substr(i, length));
      i += length;
    }
  }
  return pattern.empty() ? out.append(content) : out;
}

// English spacing, as the package's decoders/wordpiece.rs cleans it up within a token.
std::string clean_up(std::string text) {
  constexpr std::pair<const char*, const char*> kReplacements[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  if (text.find(' ') != std::string::npos) {
    for (const auto& [dirty, clean] : kReplacements) {
      text = replace(text, dirty, clean);
    }
  }
  return text;
}

}  // namespace

void WordPieceStep::end_token() {
  if (!std::exchange(first_, false)) {
    token_.starts_with(prefix_) ? token_.erase(0, prefix_.size()) : token_.insert(0, " ");
  }
  next_.text(cleanup_ ? clean_up(std::move(token_)) : token_);
  next_.end_token();
  token_.clear();
}

void MetaspaceStep::text(std::string_view part) {
  const bool drop = first_ && metaspace_.prepend != Metaspace::Prepend::never;
  next_.text(replace(part, metaspace_.replacement, drop ? "" : " "));
}

void MetaspaceStep::end_token() {
  first_ = false;
  next_.end_token();
}

void WordSuffixStep::flush(std::string_view space) {
  if (complete_) {
    next_.text(replace(token_, suffix_, space));
    next_.end_token();
    token_.clear();
    complete_ = false;
  }
}

void WordSuffixStep::text(std::string_view part) {
  flush(" ");
  token_ += part;
}

void WordSuffixStep::finish() {
  flush("");
  next_.finish();
}

void CtcStep::end_token() {
  if (first_ || token_ != previous_) {
    previous_ = token_;
    std::string text = replace(token_, options_.blank, "");
    if (options_.cleanup) {
      text = replace(clean_up(std::move(text)), options_.delimiter, " ");
    }
    if (!text.empty()) {
      next_.text(text);
      next_.end_token();
    }
  }
  first_ = false;
  token_.clear();
}

}  // namespace shardpipe::text
