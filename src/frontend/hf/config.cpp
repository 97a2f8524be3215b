#include "frontend/hf/config.h"

#include <cmath>
#include <type_traits>

#include "base/error.h"

namespace shardpipe::hf {
namespace {

constexpr size_t kMaxValueText = 60;

// A value as a message shows it: short, whatever the file holds.
std::string shown(const Json& value) {
  if (value.is_structured() && value.size() > 8) {
    return value.is_array() ? fmt::format("a list of {}", value.size()) : fmt::format("an object of {}", value.size());
  }
  const std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  return text.size() <= kMaxValueText ? text : text.substr(0, kMaxValueText) + "...";
}

template <typename T>
std::string range(const char* kind, T lowest, T highest) {
  if (lowest == std::numeric_limits<T>::lowest() && highest == std::numeric_limits<T>::max()) {
    return kind;
  }
  return fmt::format("{} from {} to {}", kind, lowest, highest);
}

std::optional<int64_t> as_integer(const Json& value) {
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})) {
    return std::nullopt;
  }
  return value.get<int64_t>();
}

}  // namespace

Config Config::read(const std::filesystem::path& file) {
  return {read_json(file), file.string()};
}

Config::Config(Json values, std::string where) : values_(std::move(values)), where_(std::move(where)) {
  if (!values_.is_object()) {
    throw_input("{} holds {}; an object is expected", where_, shown(values_));
  }
}

const Json* Config::find(Key key) const {
  for (const char* name : {key.name, key.other}) {
    if (name != nullptr) {
      const auto found = values_.find(name);
      if (found != values_.end() && !found->is_null()) {
        return &*found;
      }
    }
  }
  return nullptr;
}

const char* Config::spelling(Key key) const {
  const auto found = values_.find(key.name);
  const bool other =
      key.other != nullptr && (found == values_.end() || found->is_null()) && values_.contains(key.other);
  return other ? key.other : key.name;
}

std::string Config::subject(Key key) const {
  const Json* value = find(key);
  return fmt::format("\"{}\" in {} is {}", spelling(key), where_, value == nullptr ? "null" : shown(*value));
}

void Config::fail_missing(Key key) const {
  throw_input("\"{}\" is missing in {}", spelling(key), where_);
}

void Config::fail(Key key, const std::string& expected) const {
  throw_input("{}; {} is expected", subject(key), expected);
}

std::optional<int64_t> Config::find_integer(Key key, int64_t lowest, int64_t highest) const {
  const Json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const std::optional<int64_t> number = as_integer(*value);
  if (!number || *number < lowest || *number > highest) {
    fail(key, range("an integer", lowest, highest));
  }
  return number;
}

int64_t Config::integer(Key key, int64_t lowest, int64_t highest) const {
  const auto value = find_integer(key, lowest, highest);
  return value ? *value : (fail_missing(key), 0);
}

int64_t Config::integer(Key key, int64_t lowest, int64_t highest, int64_t fallback) const {
  return find_integer(key, lowest, highest).value_or(fallback);
}

std::optional<double> Config::find_number(Key key, double lowest, double highest) const {
  const Json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= lowest && number <= highest)) {
    fail(key, range("a number", lowest, highest));
  }
  return number;
}

double Config::number(Key key, double lowest, double highest) const {
  const auto value = find_number(key, lowest, highest);
  return value ? *value : (fail_missing(key), 0.0);
}

double Config::number(Key key, double lowest, double highest, double fallback) const {
  return find_number(key, lowest, highest).value_or(fallback);
}

std::vector<double> Config::numbers(Key key, size_t count, double lowest, double highest) const {
  const Json* value = find(key);
  if (value == nullptr) {
    fail_missing(key);
  }
  std::vector<double> result;
  if (value->is_array() && value->size() == count) {
    for (const Json& item : *value) {
      if (item.is_number() && item.get<double>() >= lowest && item.get<double>() <= highest) {
        result.push_back(item.get<double>());
      }
    }
  }
  if (result.size() != count) {
    fail(key, fmt::format("a list of {} numbers from {} to {}", count, lowest, highest));
  }
  return result;
}

std::optional<bool> Config::find_boolean(Key key) const {
  const Json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_boolean()) {
    fail(key, "true or false");
  }
  return value->get<bool>();
}

bool Config::boolean(Key key, bool fallback) const {
  return find_boolean(key).value_or(fallback);
}

std::optional<std::string> Config::find_string(Key key) const {
  const Json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_string()) {
    fail(key, "a string");
  }
  return value->get<std::string>();
}

std::string Config::string(Key key, const char* fallback) const {
  return find_string(key).value_or(fallback);
}

std::vector<std::string> Config::strings(Key key) const {
  std::vector<std::string> result;
  if (const Json* value = find(key)) {
    if (!value->is_array()) {
      fail(key, "a list of strings");
    }
    for (const Json& item : *value) {
      if (!item.is_string()) {
        fail(key, "a list of strings");
      }
      result.push_back(item.get<std::string>());
    }
  }
  return result;
}

std::vector<int64_t> Config::token_ids(Key key) const {
  std::vector<int64_t> ids;
  if (const Json* value = find(key)) {
    const bool list = value->is_array();
    for (const Json& item : list ? *value : Json::array({*value})) {
      const std::optional<int64_t> id = as_integer(item);
      if (!id) {
        fail(key, "a token id, a list of token ids or null");
      }
      ids.push_back(*id);
    }
  }
  return ids;
}

Config Config::object(Key key) const {
  const Json* value = find(key);
  if (value != nullptr && !value->is_object()) {
    fail(key, "an object");
  }
  return {value == nullptr ? Json::object() : *value, fmt::format("\"{}\" of {}", spelling(key), where_)};
}

}  // namespace shardpipe::hf
