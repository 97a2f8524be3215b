#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace shardpipe::checkpoint {

/// A file written piece by piece under a temporary name beside `path` and renamed by commit(), so that a reader sees
/// the old file or the new one. Destroyed without commit() it leaves nothing behind. All throw Error(io) naming the
/// path.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  /// Flushes to the device and renames. Nothing may be written afterwards.
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;
  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
};

}  // namespace shardpipe::checkpoint
