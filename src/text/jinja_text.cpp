#include "text/jinja_text.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "text/jinja_budget.h"

namespace shardpipe::text::jinja {

size_t point_bytes(std::string_view text, size_t index) {
  const auto first = static_cast<unsigned char>(text[index]);
  const size_t bytes = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  return std::min(bytes, text.size() - index);
}

char32_t read_point(std::string_view text, size_t& index) {
  const size_t bytes = point_bytes(text, index);
  auto point = static_cast<char32_t>(static_cast<unsigned char>(text[index]));
  if (bytes > 1) {
    point &= 0x7FU >> bytes;
  }
  for (size_t i = 1; i < bytes; ++i) {
    point = (point << 6) | (static_cast<unsigned char>(text[index + i]) & 0x3FU);
  }
  index += bytes;
  return point;
}

void append_point(std::string& text, char32_t point) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80U | ((point >> shift) & 0x3FU)); };
  if (point < 0x80) {
    text += static_cast<char>(point);
  } else if (point < 0x800) {
    text += static_cast<char>(0xC0U | (point >> 6));
    tail(0);
  } else if (point < 0x10000) {
    text += static_cast<char>(0xE0U | (point >> 12));
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xF0U | (point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

size_t count_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::u32string decode(std::string_view text) {
  charge_bytes(4 * text.size());
  std::u32string points;
  points.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    points += read_point(text, i);
  }
  return points;
}

std::string encode(std::u32string_view points) {
  charge_bytes(points.size());
  std::string text;
  text.reserve(points.size());
  for (const char32_t point : points) {
    append_point(text, point);
  }
  return text;
}

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const size_t start = i;
    if ((first >= 0x80 && first < 0xC2) || first > 0xF4) {
      return false;
    }
    const size_t wanted = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (text.size() - i < wanted) {
      return false;
    }
    for (size_t j = 1; j < wanted; ++j) {
      if ((static_cast<unsigned char>(text[start + j]) & 0xC0U) != 0x80) {
        return false;
      }
    }
    const char32_t point = read_point(text, i);
    if ((wanted == 3 && point < 0x800) || (wanted == 4 && point < 0x10000) || point > 0x10FFFF ||
        (point >= 0xD800 && point < 0xE000)) {
      return false;
    }
  }
  return true;
}

std::string strip(std::string_view text, std::optional<std::string_view> characters, bool left, bool right) {
  charge_bytes(text.size());
  const std::u32string set = characters ? decode(*characters) : std::u32string();
  const auto strips = [&](char32_t point) {
    return characters ? set.find(point) != std::u32string::npos : is_space(point);
  };
  size_t start = 0;
  while (left && start < text.size()) {
    size_t next = start;
    charge(1 + set.size() / 16);
    if (!strips(read_point(text, next))) {
      break;
    }
    start = next;
  }
  size_t stop = text.size();
  while (right && stop > start) {
    size_t last = stop - 1;
    while (last > start && (text[last] & 0xC0) == 0x80) {
      --last;
    }
    size_t next = last;
    charge(1 + set.size() / 16);
    if (!strips(read_point(text, next))) {
      break;
    }
    stop = last;
  }
  return std::string(text.substr(start, stop - start));
}

namespace {

std::vector<std::string> split_spaces(std::string_view text, int64_t count) {
  std::vector<std::string> parts;
  size_t i = 0;
  while (i < text.size()) {
    size_t next = i;
    if (is_space(read_point(text, next))) {
      i = next;
      continue;
    }
    if (count >= 0 && static_cast<int64_t>(parts.size()) == count) {
      parts.push_back(strip(text.substr(i), std::nullopt, false, true));
      break;
    }
    const size_t start = i;
    while (i < text.size() && !is_space(read_point(text, next = i))) {
      i = next;
    }
    parts.emplace_back(text.substr(start, i - start));
  }
  return parts;
}

std::vector<std::string> split_spaces_right(std::string_view text, int64_t count) {
  std::vector<std::string> parts = split_spaces(text, -1);
  if (count < 0 || static_cast<int64_t>(parts.size()) <= count) {
    return parts;
  }
  std::vector<std::string> kept(parts.end() - count, parts.end());
  std::string rest = strip(text, std::nullopt, false, true);
  for (auto part = kept.rbegin(); part != kept.rend(); ++part) {
    rest = strip(std::string_view(rest).substr(0, rest.size() - part->size()), std::nullopt, false, true);
  }
  if (!rest.empty()) {
    kept.insert(kept.begin(), rest);
  }
  return kept;
}

void check_separator(std::string_view separator) {
  if (separator.empty()) {
    throw_input("empty separator");
  }
}

}  // namespace

std::vector<std::string> split(std::string_view text, std::optional<std::string_view> separator, int64_t count) {
  charge_bytes(4 * text.size());
  if (!separator) {
    return split_spaces(text, count);
  }
  check_separator(*separator);
  std::vector<std::string> parts;
  size_t start = 0;
  while (count < 0 || static_cast<int64_t>(parts.size()) < count) {
    const size_t found = text.find(*separator, start);
    if (found == std::string_view::npos) {
      break;
    }
    charge(1);
    parts.emplace_back(text.substr(start, found - start));
    start = found + separator->size();
  }
  parts.emplace_back(text.substr(start));
  return parts;
}

std::vector<std::string> split_right(std::string_view text, std::optional<std::string_view> separator, int64_t count) {
  charge_bytes(4 * text.size());
  if (!separator) {
    return split_spaces_right(text, count);
  }
  check_separator(*separator);
  std::vector<std::string> parts;
  size_t stop = text.size();
  while (stop >= separator->size() && (count < 0 || static_cast<int64_t>(parts.size()) < count)) {
    const size_t found = text.rfind(*separator, stop - separator->size());
    if (found == std::string_view::npos) {
      break;
    }
    charge(1);
    parts.emplace_back(text.substr(found + separator->size(), stop - found - separator->size()));
    stop = found;
  }
  parts.emplace_back(text.substr(0, stop));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  charge_bytes(4 * text.size());
  std::vector<std::string> lines;
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    size_t next = i;
    const char32_t point = read_point(text, next);
    const bool ends = (point >= 0xA && point <= 0xD) || (point >= 0x1C && point <= 0x1E) || point == 0x85 ||
                      point == 0x2028 || point == 0x2029;
    if (ends) {
      if (point == U'\r' && next < text.size() && text[next] == '\n') {
        ++next;
      }
      charge(1);
      lines.emplace_back(text.substr(start, (keep_ends ? next : i) - start));
      start = next;
    }
    i = next;
  }
  if (start < text.size()) {
    lines.emplace_back(text.substr(start));
  }
  return lines;
}

std::string replace(std::string_view text, std::string_view old, std::string_view with, int64_t count) {
  charge_bytes(text.size());
  int64_t left = count < 0 ? std::numeric_limits<int64_t>::max() : count;
  std::string out;
  size_t start = 0;
  while (left-- > 0) {
    // An empty `old` matches before every code point and at the end.
    const size_t found = old.empty() ? start : text.find(old, start);
    if (found == std::string_view::npos) {
      break;
    }
    charge_bytes(with.size());
    out += text.substr(start, found - start);
    out += with;
    start = found + old.size();
    if (old.empty()) {
      if (start == text.size()) {
        return out;
      }
      const size_t bytes = point_bytes(text, start);
      out += text.substr(start, bytes);
      start += bytes;
    }
  }
  out += text.substr(start);
  return out;
}

size_t count_of(std::string_view text, std::string_view part) {
  charge_bytes(text.size());
  if (part.empty()) {
    return count_points(text) + 1;
  }
  size_t count = 0;
  for (size_t i = text.find(part); i != std::string_view::npos; i = text.find(part, i + part.size())) {
    ++count;
  }
  return count;
}

std::string repeat(std::string_view text, int64_t times) {
  std::string out;
  if (times <= 0 || text.empty()) {
    return out;
  }
  // Bounded before the product can overflow.
  charge(static_cast<uint64_t>(times) / 16);
  charge_bytes(static_cast<uint64_t>(times) * text.size());
  out.reserve(static_cast<size_t>(times) * text.size());
  for (int64_t i = 0; i < times; ++i) {
    out += text;
  }
  return out;
}

std::string pad(std::string_view text, int64_t width, Side spaces, std::string_view fill) {
  const int64_t missing = width - static_cast<int64_t>(count_points(text));
  if (missing <= 0) {
    return std::string(text);
  }
  // str.center puts the odd space on the left only where the width is odd.
  const int64_t left = spaces == Side::left ? missing : spaces == Side::right ? 0 : missing / 2 + (missing & width & 1);
  return repeat(fill, left) + std::string(text) + repeat(fill, missing - left);
}

std::string escape_html(std::string_view text) {
  std::string out = replace(text, "&", "&amp;", -1);
  out = replace(out, ">", "&gt;", -1);
  out = replace(out, "<", "&lt;", -1);
  out = replace(out, "'", "&#39;", -1);
  return replace(out, "\"", "&#34;", -1);
}

}  // namespace shardpipe::text::jinja
