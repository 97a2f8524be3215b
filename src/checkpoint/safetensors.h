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
#include "checkpoint/tensor_file.h"

namespace shardpipe::checkpoint {

/// A safetensors file, memory-mapped. Opening reads the header only.
///
/// Tensors are views of the mapping and keep it alive: nothing is read before an element is touched, processes of one
/// host share the pages, and WRITING TO ONE IS A SEGMENTATION FAULT: clone() what will be written. Two kinds are
/// private copies instead: tensors whose data is not aligned to their element size (files by other writers may have
/// them; kernels need alignment), and booleans with bytes other than 0 and 1, which become 1.
class SafetensorsFile final : public TensorFile {
 public:
  /// Throws Error(input): see parse_header.
  static std::shared_ptr<const SafetensorsFile> open(const std::filesystem::path& path);

  const std::shared_ptr<const MappedFile>& mapping() const override { return mapping_; }
  /// In the order of the header.
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  const TensorInfo* find(std::string_view name) const override;
  at::Tensor tensor(std::string_view name) const override;
  /// The same, for callers that need one dtype ("input_ids" must be int64): throws Error(input) when it has another.
  at::Tensor tensor(std::string_view name, c10::ScalarType dtype) const;
  at::Tensor slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const override;

 private:
  SafetensorsFile() = default;
  at::Tensor map(const TensorInfo& info) const;
  std::shared_ptr<const MappedFile> mapping_;
  std::vector<TensorInfo> infos_;
  std::map<std::string, std::string> metadata_;
  std::unordered_map<std::string_view, size_t> index_;  // keys live in infos_
};

}  // namespace shardpipe::checkpoint
