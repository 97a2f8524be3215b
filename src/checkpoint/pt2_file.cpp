#include "checkpoint/pt2_file.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "checkpoint/header.h"
#include "checkpoint/scalar_type.h"
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

// Elements of the shape, and the elements of storage that they reach from the first one on; nullopt when a number is
// negative or the product exceeds 63 bits.
struct Extent {
  int64_t elements = 1;
  int64_t reach = 0;
};
std::optional<Extent> extent_of(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  Extent extent;
  bool bad = shape.size() != strides.size() || shape.size() > kMaxDims;
  bool empty = false;
  for (size_t i = 0; i < shape.size() && !bad; ++i) {
    int64_t last = 0;
    bad = shape[i] < 0 || strides[i] < 0 ||
          __builtin_mul_overflow(extent.elements, std::max<int64_t>(shape[i], 1), &extent.elements) ||
          __builtin_mul_overflow(std::max<int64_t>(shape[i] - 1, 0), strides[i], &last) ||
          __builtin_add_overflow(extent.reach, last, &extent.reach);
    empty = empty || shape[i] == 0;
  }
  if (bad || __builtin_add_overflow(extent.reach, 1, &extent.reach)) {
    return std::nullopt;
  }
  return empty ? Extent{0, 0} : extent;
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
    const std::optional<Extent> extent = extent_of(info.shape, details.strides);
    const auto element_bytes = static_cast<int64_t>(c10::elementSize(*dtype));
    int64_t size = 0;
    int64_t end = 0;
    int64_t begin = 0;
    if (!extent || details.storage_offset < 0 || __builtin_mul_overflow(extent->elements, element_bytes, &size) ||
        __builtin_mul_overflow(details.storage_offset, element_bytes, &begin) ||
        __builtin_add_overflow(details.storage_offset, extent->reach, &end) ||
        __builtin_mul_overflow(end, element_bytes, &end)) {
      throw_input(
          "{} is damaged: tensor {} has shape {}, strides {}, offset {}", where, in_quotes(name),
          shape_text(info.shape), shape_text(details.strides), details.storage_offset);
    }
    details.has_data = size == 0 || record->size_bytes > 0;
    info.offset_bytes = record->offset_bytes + static_cast<uint64_t>(size == 0 ? 0 : begin);
    info.size_bytes = static_cast<uint64_t>(size);
    if (details.has_data && size > 0 && static_cast<uint64_t>(end) > record->size_bytes) {
      throw_input(
          "{} is damaged: tensor {} needs {} bytes of the record {}, which has {}", where, in_quotes(name), end,
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

at::Tensor Pt2File::map(size_t index) const {
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
  const auto options = at::TensorOptions().dtype(info.dtype);
  if (info.size_bytes == 0) {
    return at::empty({0}, options).view(info.shape);
  }
  const std::span<const std::byte> record = archive_->bytes(*archive_->find(details.record));
  auto* data = const_cast<std::byte*>(record.data());
  const auto element_bytes = static_cast<int64_t>(c10::elementSize(info.dtype));
  const auto storage = [&](void* from, int64_t bytes, auto keep, at::TensorOptions type) {
    return at::for_blob(from, {bytes / static_cast<int64_t>(type.dtype().itemsize())})
        .deleter([keep](void*) {})
        .options(type.device(at::kCPU))
        .target_device(at::kCPU)  // spares the question what kind of pointer this is
        .make_tensor();
  };
  const auto size = static_cast<int64_t>(record.size());
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(element_bytes) == 0) {
    return storage(data, size, mapping(), options).as_strided(info.shape, details.strides, details.storage_offset);
  }
  const int64_t whole = size / element_bytes * element_bytes;
  const at::Tensor copy = storage(data, whole, mapping(), at::TensorOptions().dtype(at::kByte)).clone();
  return copy.view(info.dtype).as_strided(info.shape, details.strides, details.storage_offset);
}

at::Tensor Pt2File::tensor(std::string_view name) const {
  const c10::ScalarType dtype = info(name).dtype;  // throws for an unknown name
  at::Tensor result = map(index_.find(std::string(name))->second);
  if (dtype == at::kBool && result.numel() > 0 && result.view(at::kByte).max().item<int64_t>() > 1) {
    result = result.view(at::kByte).ne(0);  // kernels rely on 0 and 1
  }
  return result;
}

at::Tensor Pt2File::slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const {
  const at::Tensor whole = tensor(name);
  const bool inside = dim >= 0 && dim < whole.dim() && start >= 0 && length >= 0 && start <= whole.size(dim) &&
                      length <= whole.size(dim) - start;
  if (!inside) {
    throw_input(
        "cannot take {} rows from row {} of dimension {} of tensor {} in {}: its shape is {}", length, start, dim,
        in_quotes(name), path().string(), shape_text(whole.sizes()));
  }
  return whole.narrow(dim, start, length);
}

}  // namespace shardpipe::checkpoint
