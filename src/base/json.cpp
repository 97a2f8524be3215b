#include "base/json.h"

#include <memory>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace shardpipe {
namespace {

// Builds the document from the parser's events, and refuses what is too deep or holds a key twice before it can cost
// memory. nlohmann's own builder looks each key of an ordered object up in linear time: a hostile file of some
// megabytes would take minutes.
template <typename Document>
class Builder {
 public:
  Builder(const std::string& where, const JsonLimits& limits) : where_(where), limits_(limits) {}
  Document take() { return std::move(root_); }

  bool null() { return value(nullptr); }
  bool boolean(bool v) { return value(v); }
  bool number_integer(typename Document::number_integer_t v) { return value(v); }
  bool number_unsigned(typename Document::number_unsigned_t v) { return value(v); }
  bool number_float(typename Document::number_float_t v, const std::string&) { return value(v); }
  bool string(std::string& v) { return value(std::move(v)); }
  bool binary(typename Document::binary_t&) { return true; }
  bool start_object(size_t) { return open(Document::object()); }
  bool start_array(size_t) { return open(Document::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    Level& level = open_.back();
    const auto [member, added] = find_or_add(level, name);
    if (!added && limits_.refuse_duplicate_keys) {
      throw_input("key \"{}\" appears twice in {}", name, where_);
    }
    level.member = member;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) {
    throw_input("bad JSON in {}: {}", where_, error.what());
  }

 private:
  // An open object or array. Nothing is added to those around it meanwhile, so that pointers into them hold.
  struct Level {
    Document* container;
    Document* member = nullptr;  // of an object: where the value of the last key goes
    std::unique_ptr<std::unordered_map<std::string, size_t>> positions = {};  // of a large ordered object: its keys
  };

  static std::pair<Document*, bool> find_or_add(Level& level, const std::string& name) {
    auto& object = level.container->template get_ref<typename Document::object_t&>();
    if constexpr (std::is_same_v<Document, Json>) {
      constexpr size_t kLarge = 32;
      if (object.size() < kLarge) {
        const auto [member, added] = object.emplace(name, nullptr);
        return {&member->second, added};
      }
      if (!level.positions) {
        level.positions = std::make_unique<std::unordered_map<std::string, size_t>>();
      }
      for (size_t i = level.positions->size(); i < object.size(); ++i) {
        level.positions->emplace(object.data()[i].first, i);
      }
      const auto [position, added] = level.positions->emplace(name, object.size());
      if (added) {
        object.emplace_back(name, nullptr);
      }
      return {&object.data()[position->second].second, added};
    } else {
      const auto [member, added] = object.emplace(name, nullptr);
      return {&member->second, added};
    }
  }

  Document* place(Document v) {
    if (open_.empty()) {
      root_ = std::move(v);
      return &root_;
    }
    Level& level = open_.back();
    if (level.container->is_array()) {
      level.container->push_back(std::move(v));
      return &level.container->back();
    }
    *level.member = std::move(v);
    return level.member;
  }

  bool value(Document v) {
    place(std::move(v));
    return true;
  }

  bool open(Document v) {
    if (open_.size() == static_cast<size_t>(limits_.depth)) {
      throw_input("JSON nested deeper than {} levels in {}", limits_.depth, where_);
    }
    open_.push_back(Level{place(std::move(v))});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& where_;
  const JsonLimits& limits_;
  Document root_;
  std::vector<Level> open_;
};

template <typename Document>
Document parse(std::string_view text, const std::string& where, const JsonLimits& limits) {
  Builder<Document> builder(where, limits);
  Document::sax_parse(text, &builder, nlohmann::detail::input_format_t::json, true, limits.comments);
  return builder.take();
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
