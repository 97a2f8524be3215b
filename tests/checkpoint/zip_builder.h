#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardpipe::test {

/// The bytes of a zip archive as PyTorch writes them: records stored, sizes only in the directory and in data
/// descriptors, data aligned to 64 bytes by an extra field that only the local header has.
struct ZipBuilder {
  bool zip64 = false;       ///< put sizes and offsets into zip64 fields, needed or not
  uint16_t method = 0;      ///< 8: claims to be compressed
  uint32_t local_size = 0;  ///< of all local headers: nobody may look at it
  std::string comment = {};

  std::string build(const std::vector<std::pair<std::string, std::string>>& records) const {
    std::string bytes;
    std::string directory;
    for (const auto& [name, data] : records) {
      const uint64_t local = bytes.size();
      put(bytes, 0x04034b50, 4);
      put_all(bytes, {{0, 2}, {0x808, 2}, {method, 2}, {0, 4}, {0, 4}, {local_size, 4}, {local_size, 4}});
      const size_t start = local + 30 + name.size() + 4;
      const size_t padding = (64 - start % 64) % 64;
      put_all(bytes, {{name.size(), 2}, {padding + 4, 2}});
      bytes += name;
      put_all(bytes, {{0x4246, 2}, {padding, 2}});
      bytes.append(padding, 'Z');
      bytes += data;
      put_all(bytes, {{0x08074b50, 4}, {0, 4}, {data.size(), 4}, {data.size(), 4}});
      put(directory, 0x02014b50, 4);
      const uint64_t wide = 0xFFFFFFFF;
      put_all(directory, {{0, 2}, {0, 2}, {0x808, 2}, {method, 2}, {0, 4}, {0, 4}});
      put_all(directory, {{zip64 ? wide : data.size(), 4}, {zip64 ? wide : data.size(), 4}});
      put_all(directory, {{name.size(), 2}, {zip64 ? 34 : 0, 2}, {0, 2}, {0, 2}, {0, 2}, {0, 4}});
      put(directory, zip64 ? wide : local, 4);
      directory += name;
      if (zip64) {  // an unknown field first
        put_all(
            directory, {{0x7075, 2}, {2, 2}, {0, 2}, {1, 2}, {24, 2}, {data.size(), 8}, {data.size(), 8}, {local, 8}});
      }
    }
    const uint64_t at = bytes.size();
    bytes += directory;
    if (zip64) {
      const uint64_t end = bytes.size();
      put_all(bytes, {{0x06064b50, 4}, {44, 8}, {0, 2}, {0, 2}, {0, 4}, {0, 4}});
      put_all(bytes, {{records.size(), 8}, {records.size(), 8}, {directory.size(), 8}, {at, 8}});
      put_all(bytes, {{0x07064b50, 4}, {0, 4}, {end, 8}, {1, 4}});
    }
    const uint64_t count = zip64 ? 0xFFFF : records.size();
    put_all(bytes, {{0x06054b50, 4}, {0, 2}, {0, 2}, {count, 2}, {count, 2}, {directory.size(), 4}});
    put_all(bytes, {{zip64 ? 0xFFFFFFFF : at, 4}, {comment.size(), 2}});
    return bytes + comment;
  }

 private:
  static void put(std::string& bytes, uint64_t value, int size) {
    for (int i = 0; i < size; ++i) {
      bytes += static_cast<char>(value >> (8 * i) & 0xFF);
    }
  }
  static void put_all(std::string& bytes, std::initializer_list<std::pair<uint64_t, int>> fields) {
    for (const auto& [value, size] : fields) {
      put(bytes, value, size);
    }
  }
};

}  // namespace shardpipe::test
