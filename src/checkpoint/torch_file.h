#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "checkpoint/pickle.h"
#include "checkpoint/strided_view.h"
#include "checkpoint/tensor_file.h"
#include "checkpoint/zip.h"

namespace shardpipe::checkpoint {

/// The state dictionary in a file of torch.save (.bin, .pt, .pth): the dictionary that a key of kStateKeys names, the
/// whole if it holds tensors, or the only dictionary in it that does. Other values in it are passed over.
/// Opening reads the pickle only. Tensors are views of a copy-on-write mapping with the strides they were saved with;
/// tensors of one storage share its bytes. Private copies instead: tensors whose storage is not aligned to their
/// element size (torch aligns) and conjugated or negated ones.
class TorchFile final : public TensorFile {
 public:
  /// Throws Error(input): see parse_pickle, parse_zip; also for the format of torch before 1.6, TorchScript, big-endian
  /// files, and a file without a state dictionary.
  static std::shared_ptr<const TorchFile> open(const std::filesystem::path& path);

  const std::shared_ptr<const MappedFile>& mapping() const override { return archive_->mapping(); }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(std::string_view name) const override;
  at::Tensor tensor(std::string_view name) const override;

 private:
  struct Details {
    const ZipEntry* record;
    StridedView view;
    bool conjugate;
    bool negative;
  };
  TorchFile() = default;
  void add(const std::string& name, PickledTensor tensor);
  std::shared_ptr<const ZipFile> archive_;
  std::vector<TensorInfo> infos_;
  std::vector<Details> details_;  // parallel to infos_
  std::unordered_map<std::string, size_t> index_;
};

/// Does the file begin as one of torch.save does, in the zip format or the one before? Reads a few bytes; false when it
/// cannot be read. A torch.export archive begins alike.
bool begins_like_torch_file(const std::filesystem::path& path);

}  // namespace shardpipe::checkpoint
