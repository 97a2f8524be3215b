#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace shardpipe::hf {

/// A key of a configuration file and, where a family has two spellings, its other name.
struct Key {
  Key(const char* key_name, const char* other_name = nullptr) : name(key_name), other(other_name) {}  // NOLINT
  const char* name;
  const char* other;
};

/// The object of config.json or generation_config.json, or an object inside it, with typed access. A key that is null
/// counts as absent. Getters throw Error(input) naming the key, the file, what is expected and the actual value; the
/// find_ form returns nullopt for an absent key, the plain one without a fallback throws.
class Config {
 public:
  /// Throws Error(input) when the file cannot be read, is no JSON, or is no object.
  static Config read(const std::filesystem::path& file);
  /// `where` names the object in messages.
  Config(Json values, std::string where);

  const Json& json() const { return values_; }
  const std::string& where() const { return where_; }

  /// The value under either spelling; nullptr when absent or null.
  const Json* find(Key key) const;
  bool has(Key key) const { return find(key) != nullptr; }
  /// Whether the key is written, be it as null.
  bool written(const char* key) const { return values_.contains(key); }

  std::optional<int64_t> find_integer(
      Key key,
      int64_t lowest = std::numeric_limits<int64_t>::min(),
      int64_t highest = std::numeric_limits<int64_t>::max()) const;
  int64_t integer(Key key, int64_t lowest, int64_t highest) const;
  int64_t integer(Key key, int64_t lowest, int64_t highest, int64_t fallback) const;

  std::optional<double> find_number(
      Key key,
      double lowest = std::numeric_limits<double>::lowest(),
      double highest = std::numeric_limits<double>::max()) const;
  double number(Key key, double lowest, double highest) const;
  double number(Key key, double lowest, double highest, double fallback) const;
  /// `count` numbers.
  std::vector<double> numbers(Key key, size_t count, double lowest, double highest) const;

  std::optional<bool> find_boolean(Key key) const;
  bool boolean(Key key, bool fallback) const;

  std::optional<std::string> find_string(Key key) const;
  std::string string(Key key, const char* fallback) const;
  /// A list of strings; empty when absent.
  std::vector<std::string> strings(Key key) const;

  /// A number or a list of numbers; empty when absent or null.
  std::vector<int64_t> token_ids(Key key) const;

  /// The object under the key; an empty one when absent.
  Config object(Key key) const;

  /// "\"key\" in FILE is VALUE": the subject of a message about a value that is there.
  std::string subject(Key key) const;

 private:
  [[noreturn]] void fail_missing(Key key) const;
  [[noreturn]] void fail(Key key, const std::string& expected) const;
  const char* spelling(Key key) const;

  Json values_;
  std::string where_;
};

}  // namespace shardpipe::hf
