#include "checkpoint/zip.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kLocatorSignature = 0x07064b50;
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint64_t kEndBytes = 22;
constexpr uint64_t kLocatorBytes = 20;
constexpr uint64_t kCentralBytes = 46;
constexpr uint64_t kLocalBytes = 30;
constexpr uint16_t kZip64Field = 1;
constexpr uint16_t kEncrypted = 1;
constexpr uint32_t kIn64 = 0xFFFFFFFF;  // "see the zip64 field"

class Reader {
 public:
  Reader(std::span<const std::byte> archive, const std::string& where) : archive_(archive), where_(where) {}

  std::vector<ZipEntry> entries() {
    find_directory();
    // Each entry takes kCentralBytes at least: a count that the bytes cannot hold must not be allocated.
    if (count_ > (archive_.size() - directory_) / kCentralBytes) {
      throw_input(
          "{} is damaged: its zip directory claims {} records at byte {}, of {} bytes", where_, count_, directory_,
          archive_.size());
    }
    std::vector<ZipEntry> result;
    result.reserve(count_);
    uint64_t at = directory_;
    for (uint64_t i = 0; i < count_; ++i) {
      result.push_back(entry(at));
    }
    return result;
  }

 private:
  // Little-endian, wherever the machine's order lies.
  template <typename T>
  T number(uint64_t at) const {
    if (at > archive_.size() || archive_.size() - at < sizeof(T)) {
      throw_input("{} is damaged: a zip header at byte {} lies outside of its {} bytes", where_, at, archive_.size());
    }
    T value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      value = static_cast<T>(value | static_cast<T>(std::to_integer<T>(archive_[at + i]) << (8 * i)));
    }
    return value;
  }

  void find_directory() {
    constexpr uint64_t kMaxComment = 0xFFFF;
    const uint64_t size = archive_.size();
    const uint64_t lowest = size > kEndBytes + kMaxComment ? size - kEndBytes - kMaxComment : 0;
    uint64_t at = size;
    for (uint64_t i = size < kEndBytes ? 0 : size - kEndBytes + 1; i-- > lowest;) {
      if (number<uint32_t>(i) == kEndSignature && number<uint16_t>(i + 20) <= size - i - kEndBytes) {
        at = i;
        break;
      }
    }
    if (at == size) {
      throw Error(
          ErrorCode::input, fmt::format("{} ({} bytes) is no zip archive: it has no end record", where_, size),
          "it may be incomplete");
    }
    count_ = number<uint16_t>(at + 10);
    directory_ = number<uint32_t>(at + 16);
    if (at >= kLocatorBytes && number<uint32_t>(at - kLocatorBytes) == kLocatorSignature) {
      const auto end64 = number<uint64_t>(at - kLocatorBytes + 8);
      if (end64 >= size || number<uint32_t>(end64) != kEnd64Signature) {
        throw_input("{} is damaged: no zip64 end record at byte {}", where_, end64);
      }
      count_ = number<uint64_t>(end64 + 32);
      directory_ = number<uint64_t>(end64 + 48);
    }
    if (directory_ > size) {
      throw_input("{} is damaged: its zip directory is at byte {}, of {} bytes", where_, directory_, size);
    }
  }

  // Reads the entry of the directory at `at` and moves `at` behind it.
  ZipEntry entry(uint64_t& at) const {
    if (number<uint32_t>(at) != kCentralSignature) {
      throw_input("{} is damaged: no zip directory entry at byte {}", where_, at);
    }
    const auto flags = number<uint16_t>(at + 8);
    const auto method = number<uint16_t>(at + 10);
    const auto name_bytes = number<uint16_t>(at + 28);
    const auto extra_bytes = number<uint16_t>(at + 30);
    const auto comment_bytes = number<uint16_t>(at + 32);
    uint64_t packed = number<uint32_t>(at + 20);
    uint64_t size = number<uint32_t>(at + 24);
    uint64_t local = number<uint32_t>(at + 42);
    const uint64_t extra = at + kCentralBytes + name_bytes;
    const uint64_t next = extra + extra_bytes + comment_bytes;
    if (next > archive_.size()) {
      throw_input("{} is damaged: the zip directory entry at byte {} is cut off", where_, at);
    }
    const char* text = reinterpret_cast<const char*>(archive_.data());
    const std::string_view name(text + at + kCentralBytes, name_bytes);
    // Of the three numbers, those that are all ones are in the zip64 field, in this order.
    for (uint64_t field = extra; field + 4 <= extra + extra_bytes;) {
      uint64_t value = field + 4;
      if (number<uint16_t>(field) == kZip64Field) {
        for (uint64_t* wide : {&size, &packed, &local}) {
          if (*wide == kIn64) {
            *wide = number<uint64_t>(value);
            value += 8;
          }
        }
        break;
      }
      field = value + number<uint16_t>(field + 2);
    }
    if (local >= archive_.size() || number<uint32_t>(local) != kLocalSignature) {
      throw_input("{} is damaged: no header of the zip record {} at byte {}", where_, in_quotes(name), local);
    }
    // The local name and extra field may have other lengths than in the directory.
    const uint64_t data = local + kLocalBytes + number<uint16_t>(local + 26) + number<uint16_t>(local + 28);
    if (data > archive_.size() || packed > archive_.size() - data) {
      throw_input(
          "{} is damaged: the zip record {} has {} bytes at byte {}, of {} bytes", where_, in_quotes(name), packed,
          data, archive_.size());
    }
    at = next;
    return {name, data, packed, method == 0 && (flags & kEncrypted) == 0 && packed == size};
  }

  std::span<const std::byte> archive_;
  const std::string& where_;
  uint64_t count_ = 0;
  uint64_t directory_ = 0;
};

// "model/" of "model/version" and "model/data/0"; the shortest first folder decides.
std::string_view common_root(const std::vector<ZipEntry>& entries) {
  if (entries.empty()) {
    return {};
  }
  const std::string_view first = entries.front().name;
  const std::string_view root = first.substr(0, first.find('/') + 1);  // empty without a slash
  const bool all =
      std::all_of(entries.begin(), entries.end(), [&](const ZipEntry& entry) { return entry.name.starts_with(root); });
  return all ? root : std::string_view();
}

}  // namespace

std::vector<ZipEntry> parse_zip(std::span<const std::byte> archive, const std::string& where) {
  std::vector<ZipEntry> entries = Reader(archive, where).entries();
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const ZipEntry& entry : entries) {
    names.push_back(entry.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    throw_input("{} is damaged: the zip record {} is there twice", where, in_quotes(*twice));
  }
  return entries;
}

std::shared_ptr<const ZipFile> ZipFile::open(const std::filesystem::path& path) {
  std::shared_ptr<ZipFile> file(new ZipFile);
  file->mapping_ = MappedFile::open(path, MappedFile::Access::copy_on_write);
  file->entries_ = parse_zip(file->mapping_->bytes(), path.string());
  file->root_ = common_root(file->entries_);
  file->index_.reserve(file->entries_.size());
  for (size_t i = 0; i < file->entries_.size(); ++i) {
    file->index_.emplace(file->entries_[i].name.substr(file->root_.size()), i);
  }
  return file;
}

const ZipEntry* ZipFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

std::span<const std::byte> ZipFile::bytes(std::string_view name) const {
  const ZipEntry* entry = find(name);
  if (entry == nullptr) {
    throw_input("{} has no record {}", path().string(), in_quotes(name));
  }
  return bytes(*entry);
}

std::span<const std::byte> ZipFile::bytes(const ZipEntry& entry) const {
  if (!entry.stored) {
    throw Error(
        ErrorCode::input,
        fmt::format("the record {} of {} is compressed or encrypted", in_quotes(entry.name), path().string()),
        "write it as torch does, or zip with -0");
  }
  return mapping_->bytes().subspan(entry.offset_bytes, entry.size_bytes);
}

std::string_view ZipFile::text(std::string_view name) const {
  const std::span<const std::byte> data = bytes(name);
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

}  // namespace shardpipe::checkpoint
