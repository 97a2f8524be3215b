#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

// The row of a sorted table that holds the character, or null.
template <typename Row>
const Row* find_row(std::span<const Row> table, char32_t c) {
  const auto row =
      std::upper_bound(table.begin(), table.end(), c, [](char32_t value, const Row& r) { return value < r.first; });
  return row != table.begin() && c <= (row - 1)->last ? &*(row - 1) : nullptr;
}

template <typename Row>
bool contains(std::span<const Row> table, char32_t c) {
  return find_row(table, c) != nullptr;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

void append_normalized(std::string& out, std::string_view text, NormalForm form) {
  if (text.empty()) {
    return;
  }
  unsigned options = UTF8PROC_STABLE;
  options |= form == NormalForm::nfc || form == NormalForm::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  options |= form == NormalForm::nfkc || form == NormalForm::nfkd ? UTF8PROC_COMPAT : 0;
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &result,
      static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  if (size < 0) {
    throw_internal("cannot normalize {} bytes of text: {}", text.size(), utf8proc_errmsg(size));
  }
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
}

}  // namespace

bool is_whitespace(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  return contains(kNumeric, c);
}

bool is_punctuation(char32_t c) {
  return contains(kPunctuation, c);
}

bool is_combining_mark(char32_t c) {
  return contains(kCombiningMarks, c);
}

bool is_nonspacing_mark(char32_t c) {
  return contains(kNonspacingMarks, c);
}

bool is_control(char32_t c) {
  return contains(kOther, c);
}

size_t cluster_end(std::string_view utf8, size_t begin) {
  // What utf8proc is too old to know stands in for a combining mark that it does know.
  const auto known = [&](size_t at) {
    const char32_t c = code_point_at(utf8, at);
    return static_cast<utf8proc_int32_t>(contains(kJoinsCluster, c) ? U'\u0300' : c);
  };
  utf8proc_int32_t state = 0;
  utf8proc_int32_t before = known(begin);
  size_t end = begin + char_length(utf8[begin]);
  while (end < utf8.size()) {
    const utf8proc_int32_t after = known(end);
    if (utf8proc_grapheme_break_stateful(before, after, &state)) {
      break;
    }
    before = after;
    end += char_length(utf8[end]);
  }
  return end;
}

std::string lowercase(std::string_view utf8) {
  std::string out;
  out.reserve(utf8.size());
  for (size_t i = 0; i < utf8.size(); i += char_length(utf8[i])) {
    const char32_t c = code_point_at(utf8, i);
    if (c == 0x130) {  // the only character whose lower case has two
      out.append("i\xCC\x87");
    } else if (const LowerCase* row = find_row(kLowerCase, c)) {
      append_utf8(out, static_cast<char32_t>(static_cast<int>(c) + row->delta));
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

std::string normalize(std::string_view utf8, NormalForm form) {
  if (is_ascii(utf8)) {
    return std::string(utf8);
  }
  std::string out;
  out.reserve(utf8.size());
  size_t begin = 0;
  for (size_t i = 0; i < utf8.size();) {
    const size_t length = char_length(utf8[i]);
    if (length > 1 && contains(kNotNormalized, code_point_at(utf8, i))) {
      append_normalized(out, utf8.substr(begin, i - begin), form);
      out.append(utf8, i, length);
      begin = i + length;
    }
    i += length;
  }
  append_normalized(out, utf8.substr(begin), form);
  return out;
}

std::string with_stand_ins(std::string_view utf8) {
  std::string out;
  for (size_t i = 0; i < utf8.size();) {
    const size_t length = char_length(utf8[i]);
    // Every stand-in is for a character of three or four bytes.
    if (length >= 3) {
      if (const StandIn* row = find_row(kStandIns, code_point_at(utf8, i))) {
        if (out.empty()) {
          out = utf8;
        }
        std::string character;
        append_utf8(character, row->stand_in);
        out.replace(i, length, character);
      }
    }
    i += length;
  }
  return out;
}

}  // namespace shardpipe::text
