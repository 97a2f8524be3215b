#include "text/fields.h"

#include <limits>

#include "base/error.h"

namespace shardpipe::text {
namespace {

// An integer of at least 0; JSON made in code may hold it as a signed one.
std::optional<uint64_t> natural(const Json& json) {
  if (json.is_number_unsigned()) {
    return json.get<uint64_t>();
  }
  if (json.is_number_integer() && json.get<int64_t>() >= 0) {
    return json.get<uint64_t>();
  }
  return std::nullopt;
}

}  // namespace

Fields::Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
  if (!json_.is_object()) {
    throw_input("{} must be an object, is {}", where_, json_.type_name());
  }
}

bool Fields::has(const char* name) const {
  const auto field = json_.find(name);
  return field != json_.end() && !field->is_null();
}

void Fields::fail(const char* name, const char* expected) const {
  const auto field = json_.find(name);
  throw_input(
      "{}.{} must be {}, is {}", where_, name, expected,
      field == json_.end() ? "missing" : one_line(field->dump()).substr(0, 80));
}

const Json& Fields::get(const char* name) const {
  const auto field = json_.find(name);
  if (field == json_.end()) {
    fail(name, "given");
  }
  return *field;
}

std::string Fields::string(const char* name) const {
  const auto field = json_.find(name);
  if (field == json_.end() || !field->is_string()) {
    fail(name, "a string");
  }
  return field->get<std::string>();
}

bool Fields::boolean(const char* name) const {
  const auto field = json_.find(name);
  if (field == json_.end() || !field->is_boolean()) {
    fail(name, "true or false");
  }
  return field->get<bool>();
}

bool Fields::boolean(const char* name, bool missing) const {
  return has(name) ? boolean(name) : missing;
}

uint32_t Fields::id(const char* name) const {
  const auto field = json_.find(name);
  const std::optional<uint32_t> value = field == json_.end() ? std::nullopt : token_id(*field);
  if (!value) {
    fail(name, "an integer from 0 to 4294967295");
  }
  return *value;
}

uint64_t Fields::size(const char* name) const {
  const auto field = json_.find(name);
  const std::optional<uint64_t> value = field == json_.end() ? std::nullopt : natural(*field);
  if (!value || *value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    fail(name, "an integer of at least 0");
  }
  return *value;
}

Fields Fields::object(const char* name) const {
  return {get(name), where_ + "." + name};
}

std::vector<Fields> Fields::objects(const char* name) const {
  const Json& array = get(name);
  if (!array.is_array()) {
    fail(name, "an array");
  }
  std::vector<Fields> out;
  for (size_t i = 0; i < array.size(); ++i) {
    out.emplace_back(array[i], fmt::format("{}.{}[{}]", where_, name, i));
  }
  return out;
}

std::optional<uint32_t> token_id(const Json& json) {
  const std::optional<uint64_t> value = natural(json);
  return value && *value <= std::numeric_limits<uint32_t>::max() ? std::optional(static_cast<uint32_t>(*value))
                                                                 : std::nullopt;
}

}  // namespace shardpipe::text
