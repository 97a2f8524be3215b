#pragma once

// The steps of decoding. Each says what it holds back.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/decoder.h"
#include "text/regex.h"

namespace shardpipe::text {

/// Steps in a row; owns them.
class ChainStep : public DecodeStep {
 public:
  ChainStep(DecodeStep& first, std::vector<std::unique_ptr<DecodeStep>> steps)
      : first_(first), steps_(std::move(steps)) {}
  void text(std::string_view part) override { first_.text(part); }
  void end_token() override { first_.end_token(); }
  void finish() override { first_.finish(); }

 private:
  DecodeStep& first_;
  std::vector<std::unique_ptr<DecodeStep>> steps_;
};

/// Writes a space between tokens. Holds nothing.
class SpaceStep : public DecodeStep {
 public:
  explicit SpaceStep(DecodeStep& next) : next_(next) {}
  void text(std::string_view part) override;
  void end_token() override;
  void finish() override;

 private:
  DecodeStep& next_;
  bool first_ = true;    // no token has ended yet
  bool inside_ = false;  // the current token has begun
};

/// Makes one token of all. Holds nothing.
class FuseStep : public DecodeStep {
 public:
  explicit FuseStep(DecodeStep& next) : next_(next) {}
  void text(std::string_view part) override { next_.text(part); }
  void end_token() override {}
  void finish() override;

 private:
  DecodeStep& next_;
};

/// Turns GPT-2's characters back into bytes and all tokens into one text, invalid bytes into U+FFFD. Holds the current
/// token and the bytes of an unfinished character.
class ByteLevelStep : public DecodeStep {
 public:
  explicit ByteLevelStep(DecodeStep& next) : next_(next) {}
  void text(std::string_view part) override { token_ += part; }
  void end_token() override;
  void finish() override;

 private:
  void emit(bool last);
  DecodeStep& next_;
  std::string token_;
  std::string bytes_;
};

/// Turns runs of tokens like "<0xC3>" into their characters, or into U+FFFD for each when they are no UTF-8. Holds the
/// current token and the run.
class ByteFallbackStep : public DecodeStep {
 public:
  explicit ByteFallbackStep(DecodeStep& next) : next_(next) {}
  void text(std::string_view part) override { token_ += part; }
  void end_token() override;
  void finish() override;

 private:
  void flush();
  DecodeStep& next_;
  std::string token_;
  std::string bytes_;
};

/// Replaces matches within each token. Holds the current token.
class ReplaceStep : public DecodeStep {
 public:
  ReplaceStep(DecodeStep& next, const Regex& pattern, const std::string& content)
      : next_(next), pattern_(pattern), content_(content) {}
  void text(std::string_view part) override { token_ += part; }
  void end_token() override;
  void finish() override { next_.finish(); }

 private:
  DecodeStep& next_;
  const Regex& pattern_;
  const std::string& content_;
  std::string token_;
};

/// Takes up to `start` and `stop` times a character off the ends of each token. Holds the current token when stop > 0.
class StripStep : public DecodeStep {
 public:
  StripStep(DecodeStep& next, const std::string& content, size_t start, size_t stop)
      : next_(next), content_(content), start_(start), stop_(stop) {}
  void text(std::string_view part) override;
  void end_token() override;
  void finish() override { next_.finish(); }

 private:
  std::string_view strip_start(std::string_view part);
  DecodeStep& next_;
  const std::string& content_;
  size_t start_;
  size_t stop_;
  size_t stripped_ = 0;  // of the current token's start
  bool begun_ = false;   // the current token has a character that stays
  std::string token_;
};

}  // namespace shardpipe::text
