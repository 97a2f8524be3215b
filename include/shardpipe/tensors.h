#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "shardpipe/export.h"

namespace shardpipe {

/// The rows of a safetensors file's int64 `input_ids` [rows, length]; where it also holds an `attention_mask` of the
/// same shape (int64, int32 or bool), the positions that the mask leaves out are dropped, on either side. Throws
/// Error(input) naming the file and the tensor.
SHARDPIPE_API std::vector<std::vector<int64_t>> read_input_ids(const std::filesystem::path& file);

}  // namespace shardpipe
