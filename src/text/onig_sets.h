#pragma once

// The named sets of characters of Oniguruma, as PCRE2 writes them.
#include <optional>
#include <string>
#include <string_view>

namespace shardpipe::text {

/// The body of a PCRE2 class ("\p{L}_"), or the complement of one.
struct CharSet {
  std::string body;
  bool negated = false;
};

/// "[body]" or "[^body]".
std::string in_brackets(const CharSet& set);

/// The set of \w outside of a class.
CharSet word_set();

/// The set of \s, \S, \w, \W, \d, \D, \h or \H in a class, given the letter; nothing for other letters.
std::optional<CharSet> shorthand_set(char letter);

/// The set of [:name:], given what is between the colons ("alpha", "^alpha"); nothing for other names.
std::optional<CharSet> posix_set(std::string_view name);

/// The set of \p{name} or \p{^name}. A name that is unknown here is left for PCRE2 to know or refuse.
CharSet property_set(std::string_view name);

}  // namespace shardpipe::text
