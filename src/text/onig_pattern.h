#pragma once

// tokenizer.json holds patterns in the dialect of Oniguruma (Ruby's syntax, Unicode 16); we match with PCRE2.
#include <string>
#include <string_view>

namespace shardpipe::text {

/// The same pattern for PCRE2 compiled with UTF, UCP and MULTILINE. Differences that are translated:
///   \s \w \h \b and POSIX brackets (other sets of characters), \v (one character), \uHHHH,
///   nested classes and && in them, long names in \p{...} and \p{^...},
///   (?m:...) (dot matches newline), {,n}, {n,m}+ (a repeated repeat, not possessive) and {n}? (optional).
/// What is no pattern at all is left for PCRE2 to refuse. Throws Error(input) on a class that does not end.
std::string pcre2_pattern(std::string_view onig);

}  // namespace shardpipe::text
