#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"

namespace shardpipe::checkpoint {

/// One record of a zip archive. The name is a view of the archive's bytes.
struct ZipEntry {
  std::string_view name;
  uint64_t offset_bytes = 0;  ///< of the data, from the start of the archive
  uint64_t size_bytes = 0;    ///< of the data as it lies in the archive
  bool stored = true;         ///< false: compressed or encrypted, cannot be read
};

/// The records of a zip archive of any origin, in the order of its central directory: zip64, records with data
/// descriptors (sizes of the local headers are not looked at) and local extra fields (padding) included. Allocates in
/// proportion to the directory's bytes. Throws Error(input) naming `where` and the record when the bytes are no zip
/// archive, a record lies outside of them, or a name is there twice. Format: PKWARE APPNOTE 6.3.
std::vector<ZipEntry> parse_zip(std::span<const std::byte> archive, const std::string& where);

/// A zip archive as PyTorch writes them (.pt2, .pt, .bin): records are stored as they are, in one folder (the root)
/// named like the file. Memory-mapped copy-on-write: nothing is read before it is touched, and what is written to the
/// mapping stays in this process.
class ZipFile {
 public:
  /// Throws Error(input): see parse_zip.
  static std::shared_ptr<const ZipFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return mapping_->path(); }
  const std::shared_ptr<const MappedFile>& mapping() const { return mapping_; }
  const std::vector<ZipEntry>& entries() const { return entries_; }
  /// The folder that holds all records, with its slash; empty when they share none.
  std::string_view root() const { return root_; }

  /// The record root() + name; nullptr when there is none.
  const ZipEntry* find(std::string_view name) const;
  /// Its bytes. Throws Error(input) naming the archive and the record when there is none or it is compressed.
  std::span<const std::byte> bytes(std::string_view name) const;
  std::span<const std::byte> bytes(const ZipEntry& entry) const;
  /// The same as text, for records that are text.
  std::string_view text(std::string_view name) const;

 private:
  ZipFile() = default;
  std::shared_ptr<const MappedFile> mapping_;
  std::vector<ZipEntry> entries_;
  std::string_view root_;
  std::unordered_map<std::string_view, size_t> index_;  // by name without root
};

}  // namespace shardpipe::checkpoint
