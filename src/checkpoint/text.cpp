#include "checkpoint/text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

namespace shardpipe::checkpoint {
namespace {

// Names longer than this are compared by their start: a hostile name must not cost quadratic time.
constexpr size_t kComparedBytes = 256;

// Levenshtein distance, one row of the table at a time; `row` is scratch space.
size_t edit_distance(std::string_view a, std::string_view b, std::vector<size_t>& row) {
  row.resize(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string in_quotes(std::string_view text, size_t max_bytes) {
  const bool cut = text.size() > max_bytes;
  if (cut) {
    size_t end = max_bytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
      --end;  // not inside a UTF-8 sequence
    }
    text = text.substr(0, end);
  }
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      result += fmt::format("\\u{:04x}", byte);
    } else {
      result += c;
    }
  }
  return result + (cut ? "...\"" : "\"");
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string list_text(std::span<const std::string> names, size_t count) {
  std::string result;
  for (size_t i = 0; i < std::min(count, names.size()); ++i) {
    result += (i == 0 ? "" : ", ") + in_quotes(names[i]);
  }
  if (names.size() > count) {
    result += fmt::format(", and {} more", names.size() - count);
  }
  return result;
}

std::vector<std::string> nearest_names(std::string_view name, std::span<const std::string> names, size_t count) {
  std::vector<std::pair<size_t, size_t>> ranked;  // distance, position
  ranked.reserve(names.size());
  std::vector<size_t> row;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto candidate = std::string_view(names[i]).substr(0, kComparedBytes);
    ranked.emplace_back(edit_distance(name.substr(0, kComparedBytes), candidate, row), i);
  }
  count = std::min(count, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(count), ranked.end());
  std::vector<std::string> result;
  for (size_t i = 0; i < count; ++i) {
    result.push_back(names[ranked[i].second]);
  }
  return result;
}

}  // namespace shardpipe::checkpoint
