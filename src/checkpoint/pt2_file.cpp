#include "checkpoint/pt2_file.h"

#include "base/error.h"
#include "checkpoint/scalar_type.h"
#include "checkpoint/strided_view.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

using Integer = SortedJson::number_integer_t;

// A view may repeat its bytes (stride 0); a copy of it must stay in proportion to the file.
constexpr uint64_t kMaxRepeatedBytes = 64 << 20;

std::vector<int64_t> integers(const SortedJson& list) {
  std::vector<int64_t> result;
  for (const SortedJson& item : list.get_ref<const SortedJson::array_t&>()) {
    result.push_back(item.at("as_int").get_ref<const Integer&>());
  }
  return result;
}

}  // namespace

std::optional<c10::ScalarType> exported_dtype(int64_t number) {
  const ElementFormat* format = find_exported_type(number);
  return format == nullptr ? std::nullopt : std::optional(to_scalar_type(format->type));
}

std::shared_ptr<const Pt2File> Pt2File::open(const std::filesystem::path& path) {
  std::shared_ptr<Pt2File> file(new Pt2File);
  file->archive_ = ZipFile::open(path);
  std::vector<std::string> models;
  for (const ZipEntry& entry : file->archive_->entries()) {
    const std::string_view name = entry.name.substr(file->archive_->root().size());
    constexpr std::string_view kFolder = "models/";
    constexpr std::string_view kSuffix = ".json";
    if (name.starts_with(kFolder) && name.ends_with(kSuffix)) {
      models.emplace_back(name.substr(kFolder.size(), name.size() - kFolder.size() - kSuffix.size()));
    }
  }
  if (models.empty()) {
    throw Error(
        ErrorCode::input,
        fmt::format("{} is no torch.export archive: it has no record models/model.json", path.string()),
        "write it with torch.export.save of PyTorch 2.8 or later");
  }
  if (models.size() > 1) {
    throw_input("{} holds {} programs ({}), it must be one", path.string(), models.size(), list_text(models, 3));
  }
  file->model_name_ = models.front();
  file->read_list("weights", false);
  file->read_list("constants", true);
  return file;
}

void Pt2File::read_list(const std::string& folder, bool constant) {
  const std::string record = fmt::format("data/{}/{}_{}_config.json", folder, model_name_, folder);
  const std::string where = path().string() + ":" + record;
  const SortedJson list = parse_sorted_json(archive_->text(record), where);
  try {
    for (const auto& [name, entry] : list.at("config").get_ref<const SortedJson::object_t&>()) {
      if (!index_.contains(name)) {
        add(name, entry, folder, constant);
      }
    }
  } catch (const SortedJson::exception& error) {
    throw_input("{} is damaged: {}", where, error.what());
  }
}

void Pt2File::add(const std::string& name, const SortedJson& entry, const std::string& folder, bool constant) {
  const std::string where = path().string();
  Pt2Tensor details;
  details.constant = constant;
  details.is_parameter = entry.at("is_param").get_ref<const bool&>();
  details.record = "data/" + folder + "/" + entry.at("path_name").get_ref<const std::string&>();
  TensorInfo info;
  info.name = name;
  const auto meta = entry.find("tensor_meta");
  if (entry.at("use_pickle").get_ref<const bool&>() || meta == entry.end() || meta->is_null()) {
    details.problem = "is stored as a Python object";
  } else {
    const Integer number = meta->at("dtype").get_ref<const Integer&>();
    const std::optional<c10::ScalarType> dtype = exported_dtype(number);
    if (!dtype) {
      throw_input("tensor {} in {} has dtype number {}, which torch does not have", in_quotes(name), where, number);
    }
    constexpr Integer kStrided = 7;
    if (meta->at("layout").get_ref<const Integer&>() != kStrided) {
      details.problem = "is not strided (sparse or packed)";
    }
    info.dtype = *dtype;
    info.dtype_name = dtype_name(info.dtype);
    info.shape = integers(meta->at("sizes"));
    details.strides = integers(meta->at("strides"));
    details.storage_offset = meta->at("storage_offset").at("as_int").get_ref<const Integer&>();
    details.requires_grad = meta->at("requires_grad").get_ref<const bool&>();
    const ZipEntry* record = archive_->find(details.record);
    if (record == nullptr) {
      throw_input("{} is damaged: no record {} for tensor {}", where, in_quotes(details.record), in_quotes(name));
    }
    const std::optional<ViewBytes> bytes =
        view_bytes({info.shape, details.strides, details.storage_offset}, info.dtype);
    if (!bytes) {
      throw_input(
          "{} is damaged: tensor {} has shape {}, strides {}, offset {}", where, in_quotes(name),
          shape_text(info.shape), shape_text(details.strides), details.storage_offset);
    }
    details.has_data = bytes->size == 0 || record->size_bytes > 0;
    info.size_bytes = bytes->size;
    info.offset_bytes = record->offset_bytes;
    if (bytes->size > 0) {
      info.offset_bytes += static_cast<uint64_t>(details.storage_offset) * c10::elementSize(info.dtype);
    }
    if (details.has_data && bytes->end > record->size_bytes) {
      throw_input(
          "{} is damaged: tensor {} needs {} bytes of the record {}, which has {}", where, in_quotes(name), bytes->end,
          in_quotes(details.record), record->size_bytes);
    }
    if (details.has_data && info.size_bytes > std::max(kMaxRepeatedBytes, record->size_bytes)) {
      throw_input(
          "tensor {} in {} repeats {} bytes to {}; the limit is {}", in_quotes(name), where, record->size_bytes,
          info.size_bytes, kMaxRepeatedBytes);
    }
  }
  index_.emplace(name, infos_.size());
  infos_.push_back(std::move(info));
  details_.push_back(std::move(details));
}

const TensorInfo* Pt2File::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &infos_[found->second];
}

const Pt2Tensor* Pt2File::details(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &details_[found->second];
}

at::Tensor Pt2File::tensor(std::string_view name) const {
  info(name);  // throws for an unknown name
  const size_t index = index_.find(std::string(name))->second;
  const TensorInfo& info = infos_[index];
  const Pt2Tensor& details = details_[index];
  if (!details.problem.empty()) {
    throw_input("tensor {} in {} {}, which cannot be read", in_quotes(info.name), path().string(), details.problem);
  }
  if (!details.has_data) {
    throw Error(
        ErrorCode::input, fmt::format("{} has no data for tensor {}", path().string(), in_quotes(info.name)),
        "it was exported without weights: give them with --weights DIR");
  }
  // Where there are no elements the record may be missing.
  const std::span<const std::byte> record =
      info.size_bytes == 0 ? std::span<const std::byte>() : archive_->bytes(*archive_->find(details.record));
  return map_view(mapping(), record, info.dtype, {info.shape, details.strides, details.storage_offset});
}

}  // namespace shardpipe::checkpoint
