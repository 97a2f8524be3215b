#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/safetensors.h"

namespace shardpipe::checkpoint {

/// The weights of a model, in one safetensors file or file of torch.save, in several with an index, or in a
/// torch.export archive. A file is opened (its header read) when one of its tensors is first asked for, and data is
/// read when touched. Tensors are views: see SafetensorsFile, TorchFile and Pt2File. Safe to use from several threads.
class Checkpoint {
 public:
  /// A folder (open_folder) or a file (open_file). Throws Error(input).
  static std::shared_ptr<const Checkpoint> open(const std::filesystem::path& path);
  /// A folder with model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json;
  /// the first counts (the order of Hugging Face). Without any, its only .pt or .pth. Throws Error(input) that says
  /// what was looked for.
  static std::shared_ptr<const Checkpoint> open_folder(const std::filesystem::path& folder);
  /// A torch.export archive when the name ends in .pt2, a file of torch.save when it ends in .bin, .pt or .pth or the
  /// content begins like one, else a safetensors file.
  static std::shared_ptr<const Checkpoint> open_file(const std::filesystem::path& file);

  const std::filesystem::path& path() const { return path_; }
  /// All names, sorted. Opens no file.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }

  /// Throw Error(input) when there is no such tensor (naming the nearest), when its file is missing or bad, or when the
  /// index places the tensor in a file that lacks it.
  const TensorInfo& info(std::string_view name) const;
  at::Tensor tensor(std::string_view name) const;
  at::Tensor slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const;
  /// The same in the dtype a model runs in: see to_run_dtype.
  at::Tensor load(std::string_view name, c10::ScalarType dtype) const;
  at::Tensor load_slice(std::string_view name, int64_t dim, int64_t start, int64_t length, c10::ScalarType dtype) const;

  /// Takes the tensor's pages out of this process's page tables: see release_pages.
  void release(std::string_view name) const;

  /// Name, dtype and shape of every tensor, in the order of names(). Opens every file, touches no data.
  std::vector<TensorInfo> tensors() const;

  /// The files opened so far.
  std::vector<std::filesystem::path> opened_files() const;
  /// Bytes of them that this process has touched: see resident_bytes(const MappedFile&).
  size_t resident_bytes() const;

 private:
  struct Shard {
    std::filesystem::path path;
    std::shared_ptr<const TensorFile> file;  // null before its first use
  };
  Checkpoint() = default;
  void take_names();
  const TensorFile& file_of(std::string_view name) const;

  std::filesystem::path path_;
  std::filesystem::path index_path_;                    // empty: a single file
  std::map<std::string, size_t, std::less<>> tensors_;  // name -> position in shards_
  std::vector<std::string> names_;
  mutable std::mutex mutex_;  // guards the files of shards_
  mutable std::vector<Shard> shards_;
};

/// What a folder lacks of its weights: the names that open_folder looks for where it has none of them, the number of
/// its index's files that do not exist. Empty when all files are there. Throws Error(input) for a damaged index.
std::string missing_files(const std::filesystem::path& folder);

}  // namespace shardpipe::checkpoint
