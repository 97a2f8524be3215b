#pragma once

// UTF-8 as Python and the Hugging Face tokenizers package see it.
#include <cstddef>
#include <string>
#include <string_view>

namespace shardpipe::text {

/// Bytes of the character that starts with `lead` in valid UTF-8: 1 to 4.
inline size_t char_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The code point that starts at `position`; `text` must be valid UTF-8.
char32_t code_point_at(std::string_view text, size_t position);

/// Where the character begins that ends before `end` (> 0); `text` must be valid UTF-8.
inline size_t last_char(std::string_view text, size_t end) {
  do {
    --end;
  } while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

/// Appends the UTF-8 form of a code point.
void append_utf8(std::string& out, char32_t code_point);

/// Appends `bytes`, each maximal invalid part replaced by U+FFFD as Python's bytes.decode("utf-8", "replace") and
/// Rust's String::from_utf8_lossy do. With `last` unset, an unfinished character at the end is left alone. Returns how
/// many bytes were taken.
size_t append_lossy(std::string& out, std::string_view bytes, bool last);

/// Whether the bytes are valid UTF-8 (no surrogates, nothing above U+10FFFF, no overlong forms).
bool is_valid_utf8(std::string_view bytes);

}  // namespace shardpipe::text
