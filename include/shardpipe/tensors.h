#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "shardpipe/export.h"

namespace at {
class Tensor;
}

namespace shardpipe {

/// Tensors by name, in order. Include <ATen/core/Tensor.h>, or torch's own headers, where you use them.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// All tensors of a safetensors file, in the file's order; views of the mapped file, which must not be written to.
/// Throws Error(input).
SHARDPIPE_API NamedTensors read_tensors(const std::filesystem::path& file);

/// Writes a safetensors file under a temporary name and renames it. Throws Error(io), or Error(usage) for a tensor that
/// the format cannot hold.
SHARDPIPE_API void write_tensors(const std::filesystem::path& file, const NamedTensors& tensors);

/// "float32", "int64", …
SHARDPIPE_API std::string dtype_name(const at::Tensor& tensor);

/// The rows of a safetensors file's int64 `input_ids` [rows, length]; where it also holds an `attention_mask` of the
/// same shape (int64, int32 or bool), the positions that the mask leaves out are dropped, on either side. Throws
/// Error(input) naming the file and the tensor.
SHARDPIPE_API std::vector<std::vector<int64_t>> read_input_ids(const std::filesystem::path& file);

}  // namespace shardpipe
