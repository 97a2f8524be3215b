// Character classes and case, as Python's str sees them (checked over all of Unicode by chat_reference.py).
#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "text/jinja_budget.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

struct Range {
  char32_t first, last;
};

template <size_t size>
bool in_ranges(char32_t point, const Range (&ranges)[size]) {
  const auto* found = std::lower_bound(
      std::begin(ranges), std::end(ranges), point,
      [](const Range& range, char32_t wanted) { return range.last < wanted; });
  return found != std::end(ranges) && point >= found->first;
}

// Unicode's Other_Lowercase, Other_Uppercase, Numeric_Type=Digit and the word-break part of Case_Ignorable.
constexpr Range kOtherLower[] = {
    {0xAA, 0xAA},     {0xBA, 0xBA},     {0x2B0, 0x2B8},     {0x2C0, 0x2C1},     {0x2E0, 0x2E4},     {0x345, 0x345},
    {0x37A, 0x37A},   {0x1D2C, 0x1D6A}, {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},   {0x2071, 0x2071},   {0x207F, 0x207F},
    {0x2090, 0x209C}, {0x2170, 0x217F}, {0x24D0, 0x24E9},   {0x2C7C, 0x2C7D},   {0xA69C, 0xA69D},   {0xA770, 0xA770},
    {0xA7F8, 0xA7F9}, {0xAB5C, 0xAB5F}, {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA}};
constexpr Range kOtherUpper[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
constexpr Range kOtherDigit[] = {{0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},
                                 {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
                                 {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
                                 {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
                                 {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};
constexpr Range kMidWord[] = {{0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
                              {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
                              {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
                              {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A}};
constexpr Range kSpaces[] = {{0x9, 0xD},       {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
                             {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};

utf8proc_category_t category(char32_t point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(point));
}

bool is_lower(char32_t point) {
  return category(point) == UTF8PROC_CATEGORY_LL || in_ranges(point, kOtherLower);
}
bool is_upper(char32_t point) {
  return category(point) == UTF8PROC_CATEGORY_LU || in_ranges(point, kOtherUpper);
}
bool is_title(char32_t point) {
  return category(point) == UTF8PROC_CATEGORY_LT;
}
bool has_case(char32_t point) {
  return is_lower(point) || is_upper(point) || is_title(point);
}

bool is_case_ignorable(char32_t point) {
  switch (category(point)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return in_ranges(point, kMidWord);
  }
}

// Final_Sigma of SpecialCasing.txt: a cased letter before, none after, case-ignorable ones skipped.
bool is_final_sigma(const std::u32string& text, size_t index) {
  size_t before = index;
  while (before > 0 && is_case_ignorable(text[before - 1])) {
    --before;
  }
  size_t after = index + 1;
  while (after < text.size() && is_case_ignorable(text[after])) {
    ++after;
  }
  return before > 0 && has_case(text[before - 1]) && (after == text.size() || !has_case(text[after]));
}

void append_lower(const std::u32string& text, size_t index, std::u32string& out) {
  if (text[index] == U'\u0130') {
    out += U"i\u0307";
  } else if (text[index] == U'\u03A3') {
    out += is_final_sigma(text, index) ? U'\u03C2' : U'\u03C3';
  } else {
    out += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(text[index])));
  }
}

bool is_in(char32_t point, CharacterClass characters) {
  const utf8proc_category_t found = category(point);
  switch (characters) {
    case CharacterClass::alphabetic:
      return found >= UTF8PROC_CATEGORY_LU && found <= UTF8PROC_CATEGORY_LO;
    case CharacterClass::decimal:
      return found == UTF8PROC_CATEGORY_ND;
    case CharacterClass::digit:
      return found == UTF8PROC_CATEGORY_ND || in_ranges(point, kOtherDigit);
    case CharacterClass::numeric:
      return found >= UTF8PROC_CATEGORY_ND && found <= UTF8PROC_CATEGORY_NO;
    case CharacterClass::alphanumeric:
      return (found >= UTF8PROC_CATEGORY_LU && found <= UTF8PROC_CATEGORY_LO) ||
             (found >= UTF8PROC_CATEGORY_ND && found <= UTF8PROC_CATEGORY_NO);
    default:
      return is_space(point);
  }
}

}  // namespace

bool is_space(char32_t point) {
  return in_ranges(point, kSpaces);
}

bool is_printable(char32_t point) {
  switch (category(point)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return point == U' ';
    default:
      return true;
  }
}

bool is_all(std::string_view text, CharacterClass characters) {
  const std::u32string points = decode(text);
  return !points.empty() &&
         std::all_of(points.begin(), points.end(), [&](char32_t point) { return is_in(point, characters); });
}

bool is_cased(std::string_view text, bool upper_case) {
  bool found = false;
  for (const char32_t point : decode(text)) {
    if (is_title(point) || (upper_case ? is_lower(point) : is_upper(point))) {
      return false;
    }
    found = found || (upper_case ? is_upper(point) : is_lower(point));
  }
  return found;
}

std::string upper(std::string_view text) {
  std::u32string out;
  for (const char32_t point : decode(text)) {
    out += upper_point(point, false);
  }
  return encode(out);
}

std::string lower(std::string_view text) {
  const std::u32string points = decode(text);
  std::u32string out;
  for (size_t i = 0; i < points.size(); ++i) {
    append_lower(points, i, out);
  }
  return encode(out);
}

std::string casefold(std::string_view text) {
  charge_bytes(4 * text.size());
  utf8proc_uint8_t* folded = nullptr;
  const auto size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &folded,
      UTF8PROC_CASEFOLD);
  std::string out(reinterpret_cast<const char*>(folded), size < 0 ? 0 : static_cast<size_t>(size));
  free(folded);  // NOLINT: utf8proc allocates with malloc
  return out;
}

std::string capitalize(std::string_view text) {
  const std::u32string points = decode(text);
  std::u32string out;
  for (size_t i = 0; i < points.size(); ++i) {
    if (i == 0) {
      out += upper_point(points[0], true);
    } else {
      append_lower(points, i, out);
    }
  }
  return encode(out);
}

std::string title(std::string_view text) {
  const std::u32string points = decode(text);
  std::u32string out;
  bool inside = false;
  for (size_t i = 0; i < points.size(); ++i) {
    if (inside) {
      append_lower(points, i, out);
    } else {
      out += upper_point(points[i], true);
    }
    inside = has_case(points[i]);
  }
  return encode(out);
}

std::string jinja_title(std::string_view text) {
  // Words and what separates them alike: the first character upper, the others lower.
  const std::u32string points = decode(text);
  const auto separates = [](char32_t point) {
    return is_space(point) || std::u32string_view(U"-({[<").find(point) != std::u32string_view::npos;
  };
  std::string out;
  for (size_t start = 0; start < points.size();) {
    size_t stop = start + 1;
    while (stop < points.size() && separates(points[stop]) == separates(points[start])) {
      ++stop;
    }
    out += encode(upper_point(points[start], false)) + lower(encode(points.substr(start + 1, stop - start - 1)));
    start = stop;
  }
  return out;
}

}  // namespace shardpipe::text::jinja
