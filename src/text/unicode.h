#pragma once

// Character properties as the Rust crates under the Hugging Face tokenizers package know them. Each crate carries its
// own Unicode version, so where these differ from ICU-like libraries the tables of unicode_tables.h decide.
#include <string>
#include <string_view>

namespace shardpipe::text {

/// White_Space; Rust's char::is_whitespace.
bool is_whitespace(char32_t c);
/// General categories Nd, Nl and No; Rust's char::is_numeric.
bool is_numeric(char32_t c);
/// ASCII punctuation and the P categories of the crate unicode_categories.
bool is_punctuation(char32_t c);
/// The M categories of the crate unicode-normalization-alignments.
bool is_combining_mark(char32_t c);

/// Category Mn of the crate unicode_categories.
bool is_nonspacing_mark(char32_t c);
/// What BERT's normalizer drops as a control character: the C categories of that crate, tab and newlines excepted.
bool is_control(char32_t c);
/// Where the extended grapheme cluster ends that begins at `begin` (< size); `utf8` must be valid.
size_t cluster_end(std::string_view utf8, size_t begin);

/// Full lower case, character by character (no context): Rust's char::to_lowercase.
std::string lowercase(std::string_view utf8);

enum class NormalForm { nfc, nfd, nfkc, nfkd };

/// Unicode normalization as the crate unicode-normalization-alignments does it.
std::string normalize(std::string_view utf8, NormalForm form);

/// The text with every character that PCRE2's Unicode version may not know replaced by a known one of the same general
/// category and the same length in UTF-8, so that offsets of matches stay true. Empty when nothing needs replacing.
std::string with_stand_ins(std::string_view utf8);

}  // namespace shardpipe::text
