#pragma once

// The steps of decoding that put words together.
#include <string>
#include <string_view>

#include "text/decoder.h"
#include "text/metaspace.h"

namespace shardpipe::text {

/// Joins BERT's tokens: one with the prefix continues a word, another follows a space. Holds the current token.
class WordPieceStep : public DecodeStep {
 public:
  WordPieceStep(DecodeStep& next, const std::string& prefix, bool cleanup)
      : next_(next), prefix_(prefix), cleanup_(cleanup) {}
  void text(std::string_view part) override { token_ += part; }
  void end_token() override;
  void finish() override { next_.finish(); }

 private:
  DecodeStep& next_;
  const std::string& prefix_;
  bool cleanup_;
  bool first_ = true;
  std::string token_;
};

/// Writes spaces for what stands for them; in the first token nothing, unless none was prepended. Holds nothing.
class MetaspaceStep : public DecodeStep {
 public:
  MetaspaceStep(DecodeStep& next, const Metaspace& metaspace) : next_(next), metaspace_(metaspace) {}
  void text(std::string_view part) override;
  void end_token() override;
  void finish() override { next_.finish(); }

 private:
  DecodeStep& next_;
  const Metaspace& metaspace_;
  bool first_ = true;
};

/// Writes a space for the suffix of a word's last token, nothing for that of the last word. Holds a token.
class WordSuffixStep : public DecodeStep {
 public:
  WordSuffixStep(DecodeStep& next, const std::string& suffix) : next_(next), suffix_(suffix) {}
  void text(std::string_view part) override;
  void end_token() override { complete_ = true; }
  void finish() override;

 private:
  void flush(std::string_view space);
  DecodeStep& next_;
  const std::string& suffix_;
  bool complete_ = false;  // token_ ended and waits for what follows
  std::string token_;
};

/// Connectionist temporal classification: a token that repeats counts once, the blank is dropped. Holds the current
/// token.
class CtcStep : public DecodeStep {
 public:
  struct Options {
    std::string blank;
    std::string delimiter;  // a space
    bool cleanup;
  };
  CtcStep(DecodeStep& next, const Options& options) : next_(next), options_(options) {}
  void text(std::string_view part) override { token_ += part; }
  void end_token() override;
  void finish() override { next_.finish(); }

 private:
  DecodeStep& next_;
  const Options& options_;
  bool first_ = true;
  std::string previous_;
  std::string token_;
};

}  // namespace shardpipe::text
