#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// Python's str on UTF-8: positions and lengths count code points. All text here is valid UTF-8 (checked where it
// enters).
namespace shardpipe::text::jinja {

/// Bytes of the code point that starts at `index`.
size_t point_bytes(std::string_view text, size_t index);
/// The code point at `index`, which moves behind it.
char32_t read_point(std::string_view text, size_t& index);
void append_point(std::string& text, char32_t point);
size_t count_points(std::string_view text);
std::u32string decode(std::string_view text);
std::string encode(std::u32string_view text);
bool is_valid_utf8(std::string_view text);

bool is_space(char32_t point);
bool is_printable(char32_t point);

/// Which characters str.is...() accepts; is_all is true when there is one and all are accepted.
enum class CharacterClass { alphabetic, decimal, digit, numeric, alphanumeric, space };
bool is_all(std::string_view text, CharacterClass characters);
/// str.islower() and str.isupper().
bool is_cased(std::string_view text, bool upper);

/// Full case mappings, the final sigma included.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string casefold(std::string_view text);
std::string capitalize(std::string_view text);
/// str.title(); the filter of that name is another (jinja_title).
std::string title(std::string_view text);
std::string jinja_title(std::string_view text);
/// The upper-case (or title-case) form of one code point, which may be several.
std::u32string upper_point(char32_t point, bool title_case);

/// No `characters`: whitespace.
std::string strip(std::string_view text, std::optional<std::string_view> characters, bool left, bool right);
/// No `separator`: runs of whitespace. A negative `count` is no limit. Throws Error(input) for an empty separator.
std::vector<std::string> split(std::string_view text, std::optional<std::string_view> separator, int64_t count);
std::vector<std::string> split_right(std::string_view text, std::optional<std::string_view> separator, int64_t count);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);
/// A negative `count` is no limit.
std::string replace(std::string_view text, std::string_view old, std::string_view with, int64_t count);
size_t count_of(std::string_view text, std::string_view part);
std::string repeat(std::string_view text, int64_t times);
/// Spaces around (or before, after) the text up to `width`.
enum class Side { left, right, both };
std::string pad(std::string_view text, int64_t width, Side spaces, std::string_view fill = " ");
/// Turns & < > ' " into HTML's names, as Jinja's escape does.
std::string escape_html(std::string_view text);

/// Python's int(text, base) and float(text); nullopt where Python raises ValueError. Throws Error(input) beyond 64
/// bits.
std::optional<int64_t> parse_integer(std::string_view text, int base);
std::optional<double> parse_float(std::string_view text);

}  // namespace shardpipe::text::jinja
