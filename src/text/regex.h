#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::text {

/// Bytes [begin, end) of a text, and whether they match a pattern.
struct Segment {
  size_t begin;
  size_t end;
  bool match;
};

/// A compiled pattern (PCRE2, JIT). Immutable: threads may share it.
class Regex {
 public:
  /// A pattern in Oniguruma's dialect. Throws Error(input) naming `where` when it does not compile.
  static Regex pattern(std::string_view onig, const std::string& where);
  /// A text that stands for itself.
  static Regex literal(std::string_view text);

  /// Cuts valid UTF-8 into what matches and what lies between, as the package's Pattern::find_matches does: the
  /// segments cover the text; matches of zero length are segments too. Throws Error(usage) when the pattern gives up on
  /// the text (more steps than PCRE2 allows).
  std::vector<Segment> segments(std::string_view text) const;

 private:
  struct Code;
  explicit Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  static Regex compile(const std::string& pattern, unsigned options, const std::string& where);
  std::shared_ptr<const Code> code_;
};

/// As Regex::segments, for single characters that satisfy a predicate.
std::vector<Segment> segments(std::string_view text, const std::function<bool(char32_t)>& predicate);

}  // namespace shardpipe::text
