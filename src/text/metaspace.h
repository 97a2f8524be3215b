#pragma once

#include <string>
#include <string_view>

#include "text/fields.h"

namespace shardpipe::text {

/// sentencepiece's way to write spaces: as a visible character, also before the first word. What the pre-tokenizer and
/// the decoder of that name have in common.
struct Metaspace {
  enum class Prepend { always, first, never };
  std::string replacement;  // of a space; one character
  Prepend prepend;          // before which parts of a text, when they do not begin with one
  bool split;               // before each

  /// The text with its spaces replaced.
  std::string replace_spaces(std::string_view text) const;
};

/// Throws Error(input) on bad fields.
Metaspace make_metaspace(const Fields& fields);

/// The field as a single character. Throws Error(input).
std::string char_field(const Fields& fields, const char* name);

}  // namespace shardpipe::text
