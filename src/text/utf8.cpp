#include "text/utf8.h"

namespace shardpipe::text {
namespace {

enum class Kind { valid, invalid, unfinished };

struct Sequence {
  Kind kind;
  size_t length;  // bytes of the character, or of the maximal invalid part
};

// Table 3-7 of the Unicode standard: the range of the second byte depends on the first.
Sequence next_sequence(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) {
    return {Kind::valid, 1};
  }
  size_t length = 0;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    low = lead == 0xE0 ? 0xA0 : 0x80;
    high = lead == 0xED ? 0x9F : 0xBF;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    low = lead == 0xF0 ? 0x90 : 0x80;
    high = lead == 0xF4 ? 0x8F : 0xBF;
  } else {
    return {Kind::invalid, 1};
  }
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) {
      return {Kind::unfinished, i};
    }
    if (byte(i) < low || byte(i) > high) {
      return {Kind::invalid, i};
    }
    low = 0x80;
    high = 0xBF;
  }
  return {Kind::valid, length};
}

}  // namespace

char32_t code_point_at(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[position + i]); };
  switch (char_length(text[position])) {
    case 1:
      return byte(0);
    case 2:
      return static_cast<char32_t>((byte(0) & 0x1F) << 6 | (byte(1) & 0x3F));
    case 3:
      return static_cast<char32_t>((byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F));
    default:
      return static_cast<char32_t>(
          (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F));
  }
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto push = [&](char32_t value) { out.push_back(static_cast<char>(static_cast<unsigned char>(value))); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | code_point >> 6);
    push(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    push(0xE0 | code_point >> 12);
    push(0x80 | (code_point >> 6 & 0x3F));
    push(0x80 | (code_point & 0x3F));
  } else {
    push(0xF0 | code_point >> 18);
    push(0x80 | (code_point >> 12 & 0x3F));
    push(0x80 | (code_point >> 6 & 0x3F));
    push(0x80 | (code_point & 0x3F));
  }
}

size_t append_lossy(std::string& out, std::string_view bytes, bool last) {
  size_t position = 0;
  while (position < bytes.size()) {
    const Sequence sequence = next_sequence(bytes.substr(position));
    if (sequence.kind == Kind::unfinished && !last) {
      break;
    }
    if (sequence.kind == Kind::valid) {
      out.append(bytes, position, sequence.length);
    } else {
      out.append("\xEF\xBF\xBD");
    }
    position += sequence.length;
  }
  return position;
}

bool is_valid_utf8(std::string_view bytes) {
  for (size_t position = 0; position < bytes.size();) {
    const Sequence sequence = next_sequence(bytes.substr(position, 4));
    if (sequence.kind != Kind::valid) {
      return false;
    }
    position += sequence.length;
  }
  return true;
}

}  // namespace shardpipe::text
