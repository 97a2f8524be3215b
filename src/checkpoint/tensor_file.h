#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "checkpoint/header.h"

namespace shardpipe::checkpoint {

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
  virtual at::Tensor slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const = 0;

  const std::filesystem::path& path() const { return mapping()->path(); }
  /// Throws Error(input) naming the file and its nearest names when it has no such tensor.
  const TensorInfo& info(std::string_view name) const;

 protected:
  TensorFile() = default;
};

}  // namespace shardpipe::checkpoint
