#pragma once

// Written by tests/text/unicode_tables.py, which asks the Hugging Face tokenizers package; do not edit the .cpp by
// hand.
#include <span>

namespace shardpipe::text {

/// An inclusive range of code points.
struct CodeRange {
  char32_t first;
  char32_t last;
};

/// A range of characters younger than PCRE2's Unicode version, and the character that stands for each of them.
struct StandIn {
  char32_t first;
  char32_t last;
  char32_t stand_in;
};

/// A range whose lower case is the character plus `delta`.
struct LowerCase {
  char32_t first;
  char32_t last;
  int delta;
};

extern const std::span<const CodeRange> kNumeric;
extern const std::span<const CodeRange> kPunctuation;
extern const std::span<const CodeRange> kCombiningMarks;
/// Characters that the normalization crate is too old to know: it takes them as starters that never change.
extern const std::span<const CodeRange> kNotNormalized;
/// Category Mn as the crate unicode_categories has it.
extern const std::span<const CodeRange> kNonspacingMarks;
/// Characters that continue a grapheme cluster and that utf8proc may be too old to know; up to three bytes long.
extern const std::span<const CodeRange> kJoinsCluster;
/// The categories Cc, Cf and Co of that crate without tab, newlines and NUL.
extern const std::span<const CodeRange> kOther;
extern const std::span<const StandIn> kStandIns;
/// Lower case mappings younger than utf8proc's Unicode version.
extern const std::span<const LowerCase> kLowerCase;

}  // namespace shardpipe::text
