#include "base/json.h"

#include <set>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace shardpipe {
namespace {

// Rejects what is too deep or holds a key twice while the text is parsed, before a hostile file can cost memory.
template <typename Document>
struct Guard {
  const std::string& where;
  const JsonLimits& limits;
  std::vector<std::set<std::string>> keys;

  bool operator()(int depth, typename Document::parse_event_t event, Document& parsed) {
    if (depth > limits.depth) {
      throw_input("JSON nested deeper than {} levels in {}", limits.depth, where);
    }
    if (!limits.refuse_duplicate_keys) {
      return true;
    }
    if (event == Document::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Document::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Document::parse_event_t::key && !keys.empty()) {
      if (!keys.back().insert(parsed.template get<std::string>()).second) {
        throw_input("key \"{}\" appears twice in {}", parsed.template get<std::string>(), where);
      }
    }
    return true;
  }
};

template <typename Document>
Document parse(std::string_view text, const std::string& where, const JsonLimits& limits) {
  Guard<Document> guard{where, limits, {}};
  try {
    // The callback slows parsing down by half: only files that ask for it pay.
    if (limits.refuse_duplicate_keys) {
      return Document::parse(text, std::ref(guard), true, limits.comments);
    }
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (quoted) {
        if (c == '\\') {
          ++i;
        } else if (c == '"') {
          quoted = false;
        }
      } else if (c == '"') {
        quoted = true;
      } else if (c == '{' || c == '[') {
        if (++depth > limits.depth) {
          throw_input("JSON nested deeper than {} levels in {}", limits.depth, where);
        }
      } else if (c == '}' || c == ']') {
        --depth;
      }
    }
    return Document::parse(text, nullptr, true, limits.comments);
  } catch (const nlohmann::json::exception& error) {
    throw_input("bad JSON in {}: {}", where, error.what());
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  return parse<Json>(text, where, limits);
}

SortedJson parse_sorted_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  return parse<SortedJson>(text, where, limits);
}

Json read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_file(path), path.string(), limits);
}

}  // namespace shardpipe
