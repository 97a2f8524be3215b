#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "checkpoint/tensor_file.h"
#include "checkpoint/zip.h"

namespace shardpipe::checkpoint {

/// What the archive says of one tensor besides TensorInfo. A record is a whole storage, in which several tensors may
/// lie.
struct Pt2Tensor {
  std::string record;  ///< of the archive: "data/weights/weight_3"
  std::vector<int64_t> strides;
  int64_t storage_offset = 0;  ///< in elements
  bool is_parameter = false;
  bool requires_grad = false;
  bool constant = false;  ///< a non-persistent buffer or a lifted constant: no state dictionary holds it
  bool has_data = true;   ///< false: exported from a fake or meta tensor, the record is empty
  std::string problem;    ///< why it cannot be read, whatever the data: pickled, sparse; else empty
};

/// The weights and constants of a torch.export archive (.pt2), under the names that the model's module gives them.
/// Opening reads their two lists only. Tensors are views of a copy-on-write mapping with the strides they were exported
/// with; tensors of one storage share its bytes. They keep the mapping alive, and what is written to them stays in this
/// process. Private copies instead: tensors whose record is not aligned to their element size.
class Pt2File final : public TensorFile {
 public:
  /// Throws Error(input) when it is no such archive, or damaged.
  static std::shared_ptr<const Pt2File> open(const std::filesystem::path& path);

  const ZipFile& archive() const { return *archive_; }
  /// "model" in "models/model.json", the name of the only exported program in the archive.
  const std::string& model_name() const { return model_name_; }

  const std::shared_ptr<const MappedFile>& mapping() const override { return archive_->mapping(); }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(std::string_view name) const override;
  /// Throws Error(input) also when the archive has no data for it, with the hint to give --weights.
  at::Tensor tensor(std::string_view name) const override;

  /// nullptr when the file has no such tensor.
  const Pt2Tensor* details(std::string_view name) const;

 private:
  Pt2File() = default;
  void read_list(const std::string& folder, bool constant);
  void add(const std::string& name, const SortedJson& entry, const std::string& folder, bool constant);
  std::shared_ptr<const ZipFile> archive_;
  std::string model_name_;
  std::vector<TensorInfo> infos_;
  std::vector<Pt2Tensor> details_;  // parallel to infos_
  std::unordered_map<std::string, size_t> index_;
};

/// torch.export's number of a dtype (torch/_export/serde/schema.py); nullopt for one that torch does not have.
std::optional<c10::ScalarType> exported_dtype(int64_t number);

}  // namespace shardpipe::checkpoint
