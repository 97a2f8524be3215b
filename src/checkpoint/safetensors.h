#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "checkpoint/header.h"

namespace shardpipe::checkpoint {

/// A safetensors file, memory-mapped. Opening reads the header only.
///
/// Tensors are views of the mapping and keep it alive: nothing is read before an element is touched, processes of one
/// host share the pages, and WRITING TO ONE IS A SEGMENTATION FAULT: clone() what will be written. Two kinds are
/// private copies instead: tensors whose data is not aligned to their element size (files by other writers may have
/// them; kernels need alignment), and booleans with bytes other than 0 and 1, which become 1.
class SafetensorsFile {
 public:
  /// Throws Error(input): see parse_header.
  static std::shared_ptr<const SafetensorsFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return mapping_->path(); }
  const std::shared_ptr<const MappedFile>& mapping() const { return mapping_; }
  /// In the order of the header.
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

  /// nullptr when the file has no such tensor.
  const TensorInfo* find(std::string_view name) const;
  /// Throws Error(input) naming the file and its nearest names when it has no such tensor.
  const TensorInfo& info(std::string_view name) const;

  /// The tensor, on the CPU. Throws Error(input) when there is none, or torch has no such type.
  at::Tensor tensor(std::string_view name) const;
  /// The same, for callers that need one dtype ("input_ids" must be int64): throws Error(input) when it has another.
  at::Tensor tensor(std::string_view name, c10::ScalarType dtype) const;
  /// tensor.narrow(dim, start, length): touches only those pages. Throws Error(input) when the range is outside of the
  /// tensor's shape.
  at::Tensor slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const;

 private:
  SafetensorsFile() = default;
  at::Tensor map(const TensorInfo& info) const;
  std::shared_ptr<const MappedFile> mapping_;
  Header header_;
  std::unordered_map<std::string_view, size_t> index_;  // keys live in header_
};

}  // namespace shardpipe::checkpoint
