#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace shardpipe::checkpoint {

/// Writes a safetensors file through a temporary name (AtomicFile), one tensor at a time. The header lists the tensors
/// in the order given; the data is laid out by falling element size, so that every tensor is aligned. Tensors of any
/// device and strides; tensors that share memory are written each.
/// Throws Error(usage) naming the tensor when the format cannot hold it (dtype, layout, no data, a name that is
/// "__metadata__", given twice, or not UTF-8), Error(io) when the file cannot be written.
void write_safetensors(
    const std::filesystem::path& path,
    const std::vector<std::pair<std::string, at::Tensor>>& tensors,
    const std::map<std::string, std::string>& metadata = {});

}  // namespace shardpipe::checkpoint
