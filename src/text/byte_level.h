#pragma once

// GPT-2's alphabet: a printable character for each byte. https://github.com/openai/gpt-2/blob/master/src/encoder.py
#include <string>
#include <string_view>

namespace shardpipe::text {

/// Each byte as its character.
std::string bytes_to_chars(std::string_view bytes);

/// The bytes that the characters stand for; the text's own bytes when one of them stands for none.
std::string chars_to_bytes(std::string_view text);

/// GPT-2's pattern, which a ByteLevel pre-tokenizer with use_regex splits by.
inline constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace shardpipe::text
