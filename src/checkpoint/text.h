#pragma once

// How names, shapes and lists from files of any origin appear in messages.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::checkpoint {

/// `text` in quotation marks, control characters escaped (a message is one line), at most `max_bytes` of it.
std::string in_quotes(std::string_view text, size_t max_bytes = 200);

/// "[2, 3]"
std::string shape_text(std::span<const int64_t> shape);

/// The first `count` names quoted, then ", and 7 more".
std::string list_text(std::span<const std::string> names, size_t count);

/// Up to `count` of `names` by edit distance to `name`, nearest first, equal ones in the order given.
std::vector<std::string> nearest_names(std::string_view name, std::span<const std::string> names, size_t count = 3);

}  // namespace shardpipe::checkpoint
