#include "checkpoint/folder.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/index.h"
#include "checkpoint/pt2_file.h"
#include "checkpoint/resident.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/text.h"
#include "checkpoint/torch_file.h"

namespace shardpipe::checkpoint {
namespace {

// What a folder may hold, in the order of Hugging Face.
struct Layout {
  const char* single;
  const char* index;
};
constexpr std::array<Layout, 2> kLayouts = {
    {{"model.safetensors", "model.safetensors.index.json"}, {"pytorch_model.bin", "pytorch_model.bin.index.json"}}};

bool is_there(const std::filesystem::path& path) {
  std::error_code error;  // what cannot be seen is not there
  return std::filesystem::exists(path, error);
}

bool is_folder(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

// The one place that knows which formats there are.
std::shared_ptr<const TensorFile> open_tensor_file(const std::filesystem::path& path) {
  if (path.extension() == ".pt2") {
    return Pt2File::open(path);
  }
  const std::string extension = path.extension().string();
  if (extension == ".bin" || extension == ".pt" || extension == ".pth" || begins_like_torch_file(path)) {
    return TorchFile::open(path);
  }
  return SafetensorsFile::open(path);
}

// The one .pt or .pth of a folder, whatever its name; empty when there is none.
std::filesystem::path only_torch_file(const std::filesystem::path& folder) {
  std::vector<std::string> found;
  std::error_code error;  // as is_there
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".pt" || entry.path().extension() == ".pth") {
      found.push_back(entry.path().filename().string());
    }
  }
  std::sort(found.begin(), found.end());
  if (found.size() > 1) {
    throw_input("no checkpoint in {}: it holds {} and {}, one is expected", folder.string(), found[0], found[1]);
  }
  return found.empty() ? std::filesystem::path() : folder / found.front();
}

std::string looked_for() {
  std::string names;
  for (const Layout& layout : kLayouts) {
    names += fmt::format("{}, {}, ", layout.single, layout.index);
  }
  return names + "a file .pt or .pth";
}

}  // namespace

std::string missing_files(const std::filesystem::path& folder) {
  for (const Layout& layout : kLayouts) {
    if (is_there(folder / layout.single)) {
      return "";
    }
    if (is_there(folder / layout.index)) {
      const ShardIndex index = read_shard_index(folder / layout.index);
      const auto missing = std::count_if(
          index.files.begin(), index.files.end(), [&](const std::string& name) { return !is_there(folder / name); });
      return missing == 0 ? "" : fmt::format("{} of the {} files of {}", missing, index.files.size(), layout.index);
    }
  }
  return only_torch_file(folder).empty() ? looked_for() : "";
}

std::shared_ptr<const Checkpoint> Checkpoint::open(const std::filesystem::path& path) {
  if (!is_there(path)) {
    throw_input("no checkpoint at {}: there is no such file or folder", path.string());
  }
  return is_folder(path) ? open_folder(path) : open_file(path);
}

std::shared_ptr<const Checkpoint> Checkpoint::open_folder(const std::filesystem::path& folder) {
  if (!is_folder(folder)) {
    throw_input("no checkpoint in {}: it is not a folder", folder.string());
  }
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->path_ = folder;
  for (const Layout& layout : kLayouts) {
    if (is_there(folder / layout.single)) {
      checkpoint->shards_.push_back({folder / layout.single, open_tensor_file(folder / layout.single)});
      checkpoint->take_names();
      return checkpoint;
    }
    if (is_there(folder / layout.index)) {
      checkpoint->index_path_ = folder / layout.index;
      ShardIndex index = read_shard_index(checkpoint->index_path_);
      for (const std::string& name : index.files) {
        checkpoint->shards_.push_back({folder / name, nullptr});
      }
      checkpoint->tensors_.insert(index.tensors.begin(), index.tensors.end());
      checkpoint->take_names();
      return checkpoint;
    }
  }
  if (const std::filesystem::path file = only_torch_file(folder); !file.empty()) {
    return open_file(file);
  }
  throw_input("no checkpoint in {}: looked for {}", folder.string(), looked_for());
}

std::shared_ptr<const Checkpoint> Checkpoint::open_file(const std::filesystem::path& file) {
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->path_ = file;
  checkpoint->shards_.push_back({file, open_tensor_file(file)});
  checkpoint->take_names();
  return checkpoint;
}

// Fills names_, and tensors_ of a single file.
void Checkpoint::take_names() {
  if (index_path_.empty()) {
    for (const TensorInfo& tensor : shards_.front().file->tensors()) {
      tensors_.emplace(tensor.name, 0);
    }
  }
  names_.reserve(tensors_.size());
  for (const auto& [name, shard] : tensors_) {
    names_.push_back(name);
  }
}

const TensorFile& Checkpoint::file_of(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    throw_input(
        "no tensor {} in {}; its {} tensors include {}", in_quotes(name), path_.string(), names_.size(),
        names_.empty() ? "none" : list_text(nearest_names(name, names_), 3));
  }
  const std::lock_guard lock(mutex_);
  Shard& shard = shards_[found->second];
  if (shard.file == nullptr) {
    if (!is_there(shard.path)) {
      throw_input(
          "{} places tensor {} in {}, which does not exist", index_path_.string(), in_quotes(name),
          shard.path.string());
    }
    shard.file = open_tensor_file(shard.path);
  }
  if (shard.file->find(name) == nullptr) {
    throw_input(
        "{} places tensor {} in {}, which lacks it", index_path_.string(), in_quotes(name), shard.path.string());
  }
  return *shard.file;
}

const TensorInfo& Checkpoint::info(std::string_view name) const {
  return file_of(name).info(name);
}

at::Tensor Checkpoint::tensor(std::string_view name) const {
  return file_of(name).tensor(name);
}

at::Tensor Checkpoint::slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const {
  return file_of(name).slice(name, dim, start, length);
}

at::Tensor Checkpoint::load(std::string_view name, c10::ScalarType dtype) const {
  const TensorFile& file = file_of(name);
  return to_run_dtype(file.tensor(name), dtype, *file.mapping(), std::string(name));
}

at::Tensor Checkpoint::load_slice(
    std::string_view name, int64_t dim, int64_t start, int64_t length, c10::ScalarType dtype) const {
  const TensorFile& file = file_of(name);
  return to_run_dtype(file.slice(name, dim, start, length), dtype, *file.mapping(), std::string(name));
}

void Checkpoint::release(std::string_view name) const {
  const TensorFile& file = file_of(name);
  const TensorInfo& info = file.info(name);
  release_pages(*file.mapping(), file.mapping()->bytes().data() + info.offset_bytes, info.size_bytes);
}

std::vector<TensorInfo> Checkpoint::tensors() const {
  std::vector<TensorInfo> result;
  result.reserve(names_.size());
  for (const std::string& name : names_) {
    result.push_back(info(name));
  }
  return result;
}

std::vector<std::filesystem::path> Checkpoint::opened_files() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::filesystem::path> result;
  for (const Shard& shard : shards_) {
    if (shard.file != nullptr) {
      result.push_back(shard.path);
    }
  }
  return result;
}

size_t Checkpoint::resident_bytes() const {
  const std::lock_guard lock(mutex_);
  size_t total = 0;
  for (const Shard& shard : shards_) {
    total += shard.file == nullptr ? 0 : checkpoint::resident_bytes(*shard.file->mapping());
  }
  return total;
}

}  // namespace shardpipe::checkpoint
