#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace shardpipe::checkpoint {

/// What a file says of one tensor.
struct TensorInfo {
  std::string name;
  c10::ScalarType dtype = c10::ScalarType::Undefined;  ///< Undefined where torch has no such type (F6_E2M3, F6_E3M2)
  std::string_view dtype_name;                         ///< for messages: safetensors' name, "BF16", or torch's
  std::vector<int64_t> shape;                          ///< as in the file: of F4 tensors twice torch's last extent
  uint64_t offset_bytes = 0;                           ///< from the start of the file
  uint64_t size_bytes = 0;
};

/// One file of a checkpoint, whatever its format: named tensors that are views of its mapping and keep it alive.
class TensorFile {
 public:
  virtual ~TensorFile() = default;
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  virtual const std::shared_ptr<const MappedFile>& mapping() const = 0;
  /// In the order of the file.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  /// nullptr when the file has no such tensor.
  virtual const TensorInfo* find(std::string_view name) const = 0;
  /// The tensor, on the CPU. Throws Error(input) when there is none, or torch has no such type.
  virtual at::Tensor tensor(std::string_view name) const = 0;
  /// tensor.narrow(dim, start, length): touches only those pages. Throws Error(input) when the range is outside of the
  /// tensor's shape.
  virtual at::Tensor slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const;

  const std::filesystem::path& path() const { return mapping()->path(); }
  /// Throws Error(input) naming the file and its nearest names when it has no such tensor.
  const TensorInfo& info(std::string_view name) const;

 protected:
  TensorFile() = default;
  /// Throws Error(input) when a tensor of that shape has no such range.
  void check_slice(std::string_view name, at::IntArrayRef shape, int64_t dim, int64_t start, int64_t length) const;
};

}  // namespace shardpipe::checkpoint
