#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
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

/// Unit of LaterTensor::place: a line of the processor's cache.
inline constexpr size_t kPlaceUnit = 64;
/// Begin of the names of tensors that only fill gaps.
inline constexpr const char* kGapPrefix = "__gap.";

/// A tensor that is made when it is written.
struct LaterTensor {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  std::function<at::Tensor()> make;
  size_t place = 0;  ///< of the data in the file, modulo kPlaceUnit; a multiple of the element size
};

/// As write_safetensors, with one tensor in memory at a time, each at its place: what kernels compute from a mapped
/// tensor may depend on where it lies in the last bits. Gaps are filled with tensors of bytes named "__gap.N".
void write_placed(
    const std::filesystem::path& path,
    const std::vector<LaterTensor>& tensors,
    const std::map<std::string, std::string>& metadata = {});

}  // namespace shardpipe::checkpoint
