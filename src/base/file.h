#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace shardpipe {

/// The whole file. Throws Error(input) naming the path when it cannot be opened or read.
std::string read_file(const std::filesystem::path& path);

/// Writes `content` to a temporary name beside `path` and renames it, so that a reader sees the old file or the new
/// one. Throws Error(io).
void write_file(const std::filesystem::path& path, std::string_view content);

/// A file mapped into memory: ranks of one host that map it share its pages. Pages are read on first touch.
class MappedFile {
 public:
  enum class Access {
    read_only,      ///< writing to it is a segmentation fault
    copy_on_write,  ///< a written page becomes this process's own; the file never changes
  };
  /// Throws Error(input) when the path is not a readable regular file.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path, Access access = Access::read_only);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  size_t size_bytes() const { return size_; }

 private:
  MappedFile(std::filesystem::path path, void* data, size_t size) : path_(std::move(path)), data_(data), size_(size) {}
  std::filesystem::path path_;
  void* data_;
  size_t size_;
};

}  // namespace shardpipe
