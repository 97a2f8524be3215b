#include "checkpoint/torch_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "base/error.h"
#include "checkpoint/scalar_type.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

using Kind = Pickle::Kind;

// Where training scripts put the state dictionary, in the order of preference.
constexpr std::array<std::string_view, 7> kStateKeys = {"state_dict", "model_state_dict", "model",  "module",
                                                        "net",        "network",          "weights"};

constexpr std::string_view kZipStart("PK\3\4", 4);
// Before torch 1.6: a pickled magic number; before that, a tar archive.
constexpr std::string_view kOldStart("\x80\x02\x8A\x0A\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19\x2E", 15);

// A view may repeat its bytes (stride 0); a copy of it must stay in proportion to the file.
constexpr uint64_t kMaxRepeatedBytes = 64 << 20;

std::string first_bytes(const std::filesystem::path& path) {
  std::string bytes(kOldStart.size(), '\0');
  std::ifstream stream(path, std::ios::binary);
  stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(std::max<std::streamsize>(stream.gcount(), 0)));
  return bytes;
}

bool holds_tensors(const Pickle& pickle, Pickle::Id id) {
  if (pickle.kind(id) != Kind::dict) {
    return false;
  }
  const std::span<const Pickle::Id> items = pickle.items(id);
  for (size_t i = 1; i < items.size(); i += 2) {
    if (pickle.kind(items[i]) == Kind::tensor) {
      return true;
    }
  }
  return false;
}

Pickle::Id state_dictionary(const Pickle& pickle, const std::string& where) {
  const char* const hint = "save it with torch.save(model.state_dict(), FILE)";
  const Pickle::Id root = pickle.root();
  if (pickle.kind(root) != Kind::dict) {
    throw Error(ErrorCode::input, fmt::format("{} holds no dictionary of tensors", where), hint);
  }
  const std::span<const Pickle::Id> items = pickle.items(root);
  std::vector<std::pair<std::string_view, Pickle::Id>> nested;
  std::unordered_map<Pickle::Id, bool> known;  // one dictionary may be there under very many keys
  for (size_t i = 0; i < items.size(); i += 2) {
    const auto [entry, added] = known.try_emplace(items[i + 1]);
    if (added) {
      entry->second = holds_tensors(pickle, items[i + 1]);
    }
    if (pickle.kind(items[i]) == Kind::text && entry->second) {
      nested.emplace_back(pickle.text(items[i]), items[i + 1]);
    }
  }
  for (const std::string_view key : kStateKeys) {
    const auto found = std::find_if(nested.begin(), nested.end(), [&](const auto& pair) { return pair.first == key; });
    if (found != nested.end()) {
      return found->second;
    }
  }
  if (holds_tensors(pickle, root)) {
    return root;
  }
  if (nested.size() == 1) {
    return nested.front().second;
  }
  std::vector<std::string> names;
  for (const auto& [name, id] : nested) {
    names.emplace_back(name.substr(0, 256));
  }
  if (!names.empty()) {
    throw Error(
        ErrorCode::input,
        fmt::format("{} holds {} dictionaries of tensors, {}", where, names.size(), list_text(names, 3)),
        "save the model's alone, or under the key \"model\"");
  }
  throw Error(ErrorCode::input, fmt::format("{} holds no tensors that have names", where), hint);
}

}  // namespace

bool begins_like_torch_file(const std::filesystem::path& path) {
  const std::string start = first_bytes(path);
  return start.starts_with(kZipStart) || start == kOldStart;
}

std::shared_ptr<const TorchFile> TorchFile::open(const std::filesystem::path& path) {
  const std::string where = path.string();
  if (first_bytes(path) == kOldStart) {
    throw Error(
        ErrorCode::input, fmt::format("{} is in the format of torch.save before torch 1.6", where),
        "load and save it again with a later torch: torch.save(torch.load(FILE), FILE)");
  }
  std::shared_ptr<TorchFile> file(new TorchFile);
  file->archive_ = ZipFile::open(path);
  if (file->archive_->find("constants.pkl") != nullptr) {
    throw Error(
        ErrorCode::input, fmt::format("{} is a TorchScript program", where),
        "save its weights instead: torch.save(torch.jit.load(FILE).state_dict(), OTHER)");
  }
  if (file->archive_->find("data.pkl") == nullptr) {
    throw_input("{} is a zip archive, but none of torch.save: it has no record data.pkl", where);
  }
  if (file->archive_->find("byteorder") != nullptr && file->archive_->text("byteorder") != "little") {
    throw_input(
        "{} has byte order {}; only \"little\" is read", where, in_quotes(file->archive_->text("byteorder"), 16));
  }
  const Pickle pickle = parse_pickle(file->archive_->bytes("data.pkl"), where);
  const std::span<const Pickle::Id> items = pickle.items(state_dictionary(pickle, where));
  for (size_t i = items.size(); i > 0; i -= 2) {  // of a key given twice the last value counts
    if (pickle.kind(items[i - 2]) == Kind::text && pickle.kind(items[i - 1]) == Kind::tensor) {
      const std::string_view text = pickle.text(items[i - 2]);
      if (text.size() > kMaxPickledNameBytes) {
        throw_input(
            "{} holds a tensor whose name has {} bytes; at most {} are read", where, text.size(), kMaxPickledNameBytes);
      }
      const std::string name(text);
      if (!file->index_.contains(name)) {
        file->add(name, pickle.tensor(items[i - 1], name));
      }
    }
  }
  std::reverse(file->infos_.begin(), file->infos_.end());
  std::reverse(file->details_.begin(), file->details_.end());
  for (auto& [name, index] : file->index_) {
    index = file->infos_.size() - 1 - index;
  }
  return file;
}

void TorchFile::add(const std::string& name, PickledTensor tensor) {
  const std::string where = path().string();
  const std::string record_name = "data/" + tensor.storage;
  const ZipEntry* record = archive_->find(record_name);
  if (record == nullptr) {
    throw_input("{} is damaged: no record {} for tensor {}", where, in_quotes(record_name), in_quotes(name));
  }
  TensorInfo info;
  info.name = name;
  info.dtype = to_scalar_type(tensor.dtype);
  info.dtype_name = dtype_name(info.dtype);
  info.shape = tensor.shape;
  const StridedView view = {std::move(tensor.shape), std::move(tensor.strides), tensor.offset};
  const std::optional<ViewBytes> bytes = view_bytes(view, info.dtype);
  if (!bytes || bytes->end > record->size_bytes) {
    throw_input(
        "{} is damaged: tensor {} with shape {}, strides {} and offset {} exceeds its record {} of {} bytes", where,
        in_quotes(name), shape_text(view.shape), shape_text(view.strides), view.offset, in_quotes(record_name),
        record->size_bytes);
  }
  if (bytes->size > std::max(kMaxRepeatedBytes, record->size_bytes)) {
    throw_input(
        "tensor {} in {} repeats {} bytes to {}; the limit is {}", in_quotes(name), where, record->size_bytes,
        bytes->size, kMaxRepeatedBytes);
  }
  info.size_bytes = bytes->size;
  info.offset_bytes = record->offset_bytes;
  if (bytes->size > 0) {
    info.offset_bytes += static_cast<uint64_t>(view.offset) * c10::elementSize(info.dtype);
  }
  index_.emplace(name, infos_.size());
  infos_.push_back(std::move(info));
  details_.push_back({record, view, tensor.conjugate, tensor.negative});
}

const TensorInfo* TorchFile::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &infos_[found->second];
}

at::Tensor TorchFile::tensor(std::string_view name) const {
  const TensorInfo& described = info(name);  // throws for an unknown name
  const Details& details = details_[index_.find(std::string(name))->second];
  at::Tensor result = map_view(mapping(), archive_->bytes(*details.record), described.dtype, details.view);
  if (details.conjugate) {
    result = result.conj().resolve_conj();
  }
  return details.negative ? result.neg() : result;
}

}  // namespace shardpipe::checkpoint
