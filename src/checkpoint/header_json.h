#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/element_type.h"

namespace shardpipe::checkpoint {

/// One entry of a header as written: well-formed, not yet checked against the file.
struct HeaderEntry {
  std::string name;
  const ElementFormat* dtype = nullptr;
  std::vector<int64_t> shape;
  std::vector<uint64_t> offsets;  ///< two: begin and end, from the end of the header
};

struct HeaderJson {
  std::vector<HeaderEntry> entries;
  std::map<std::string, std::string> metadata;
};

/// Parses the JSON text of a header in one pass, without a document tree (which costs memory and, with many keys,
/// time). Throws Error(input) naming `where` and the tensor on anything but the format.
HeaderJson parse_header_json(std::string_view text, const std::string& where);

}  // namespace shardpipe::checkpoint
