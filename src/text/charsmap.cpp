#include "text/charsmap.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

constexpr size_t kLongestCluster = 5;  // bytes; the package looks longer ones up by character only

uint32_t little_endian(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  }
  return value;
}

// A unit of the trie: https://github.com/s-yata/darts-clone, DoubleArrayUnit.
bool has_leaf(uint32_t unit) {
  return (unit >> 8 & 1) == 1;
}
uint32_t value_of(uint32_t unit) {
  return unit & 0x7FFFFFFF;
}
uint32_t label(uint32_t unit) {
  return unit & (0x80000000 | 0xFF);
}
uint64_t offset(uint32_t unit) {
  return static_cast<uint64_t>(unit >> 10) << ((unit & 0x200) >> 6);
}

}  // namespace

Charsmap::Charsmap(std::string_view bytes, const std::string& where) {
  const size_t size = bytes.size() < 4 ? 0 : little_endian(bytes, 0);
  if (bytes.size() < 4 || size > bytes.size() - 4 || size % 4 != 0) {
    throw_input("{} is damaged: a trie of {} bytes in {} bytes", where, size, bytes.size());
  }
  units_.reserve(size / 4);
  for (size_t i = 0; i < size; i += 4) {
    units_.push_back(little_endian(bytes, 4 + i));
  }
  replacements_ = bytes.substr(4 + size);
  if (!is_valid_utf8(replacements_)) {
    throw_input("{} is damaged: its replacements are no UTF-8", where);
  }
}

// The replacement of the shortest string in the trie that `text` begins with.
bool Charsmap::replacement(std::string_view text, std::string& out) const {
  uint64_t at = 0;
  const auto unit = [&] { return at < units_.size() ? units_[at] : 0; };
  at ^= offset(unit());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || label(unit()) != byte) {
      return false;
    }
    const uint32_t found = unit();
    at ^= offset(found);
    if (has_leaf(found)) {
      const size_t begin = at < units_.size() ? value_of(unit()) : replacements_.size();
      // A place within a character is none.
      if (begin > replacements_.size() ||
          (begin < replacements_.size() && (static_cast<unsigned char>(replacements_[begin]) & 0xC0) == 0x80)) {
        return false;
      }
      out.append(replacements_, begin, std::min(replacements_.find('\0', begin), replacements_.size()) - begin);
      return true;
    }
  }
  return false;
}

std::string Charsmap::normalize(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = cluster_end(text, begin);
    const std::string_view cluster = text.substr(begin, end - begin);
    begin = end;
    if (cluster.size() <= kLongestCluster && replacement(cluster, out)) {
      continue;
    }
    for (size_t i = 0; i < cluster.size();) {
      const std::string_view character = cluster.substr(i, char_length(cluster[i]));
      if (!replacement(character, out)) {
        out.append(character);
      }
      i += character.size();
    }
  }
  return out;
}

std::string decode_base64(std::string_view text, const std::string& where) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  const size_t padding = text.size() - std::min(text.find('='), text.size());
  uint32_t bits = 0;
  size_t count = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) {
      throw_input("{} is no base64: byte {} of it is {:?}", where, count, c);
    }
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (++count % 4 != 1) {
      out.push_back(static_cast<char>(static_cast<unsigned char>(bits >> (6 - 2 * ((count - 1) % 4)))));
    }
  }
  if (text.size() % 4 != 0 || padding > 2 || text.find_first_not_of('=', text.size() - padding) < text.size()) {
    throw_input("{} is no base64: {} characters, {} of them from the first =", where, text.size(), padding);
  }
  return out;
}

}  // namespace shardpipe::text
