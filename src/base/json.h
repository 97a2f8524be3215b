#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace shardpipe {

using Json = nlohmann::ordered_json;

/// Parses JSON text of any origin. Throws Error(input) naming `where` on bad syntax, invalid UTF-8, nesting deeper than
/// 256 levels or (when asked) a duplicate key in an object. Comments are accepted when `comments` is set.
struct JsonLimits {
  int depth = 256;
  bool comments = false;
  bool refuse_duplicate_keys = false;
};
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

/// The same with sorted keys, for documents with very many of them: finding a key of a Json takes time in proportion to
/// the keys of its object.
using SortedJson = nlohmann::json;
SortedJson parse_sorted_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

/// Reads and parses a file. Throws Error(input) when it cannot be read.
Json read_json(const std::filesystem::path& path, const JsonLimits& limits = {});

}  // namespace shardpipe
