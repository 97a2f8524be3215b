#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace shardpipe::text {
namespace {

constexpr char32_t kMaxChar = 0x100 + 68;  // 68 bytes have no printable character of their own

struct Alphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<int16_t, kMaxChar> of_char{};

  constexpr Alphabet() {
    of_char.fill(-1);
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
      of_byte[byte] = printable ? byte : next++;
      of_char[of_byte[byte]] = static_cast<int16_t>(byte);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

std::string bytes_to_chars(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    append_utf8(out, kAlphabet.of_byte[static_cast<unsigned char>(byte)]);
  }
  return out;
}

std::string chars_to_bytes(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += char_length(text[i])) {
    const char32_t c = code_point_at(text, i);
    if (c >= kMaxChar || kAlphabet.of_char[c] < 0) {
      return std::string(text);
    }
    out.push_back(static_cast<char>(static_cast<unsigned char>(kAlphabet.of_char[c])));
  }
  return out;
}

}  // namespace shardpipe::text
