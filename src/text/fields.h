#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace shardpipe::text {

/// A JSON object of a tokenizer file and where it stands, for messages ("tokenizer.json:
/// pre_tokenizer.pretokenizers[1]"). Every getter throws Error(input) when the field is missing (unless a default is
/// given) or of another type.
class Fields {
 public:
  /// Throws Error(input) when `json` is no object. The JSON must outlive the Fields.
  Fields(const Json& json, std::string where);

  const std::string& where() const { return where_; }
  const Json& json() const { return json_; }
  /// True when the field is there and not null.
  bool has(const char* name) const;
  const Json& get(const char* name) const;

  std::string string(const char* name) const;
  bool boolean(const char* name) const;
  bool boolean(const char* name, bool missing) const;
  /// An integer in [0, 2^32).
  uint32_t id(const char* name) const;
  /// An integer in [0, 2^63).
  uint64_t size(const char* name) const;
  Fields object(const char* name) const;
  /// The objects of an array.
  std::vector<Fields> objects(const char* name) const;
  /// The value of "type". Throws Error(input) when there is none.
  std::string type() const { return string("type"); }

 private:
  [[noreturn]] void fail(const char* name, const char* expected) const;
  const Json& json_;
  std::string where_;
};

/// A JSON value as a token id, or nothing when it is no integer in [0, 2^32).
std::optional<uint32_t> token_id(const Json& json);

}  // namespace shardpipe::text
