#pragma once

// What the fuzz targets share. A target is one file with LLVMFuzzerTestOneInput: it gives the input to a reader, which
// must answer it or throw Error(input) or Error(usage) within the limits; everything else ends the program.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace shardpipe::fuzz {

/// While it lives, the program ends when the heap grows by more than `base + factor * input_bytes` bytes: a reader's
/// memory must stay in proportion to its file.
class MemoryLimit {
 public:
  MemoryLimit(size_t input_bytes, size_t factor, size_t base);
  ~MemoryLimit();
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
};

/// The input as a file that readers can open by its path. In memory only.
class InputFile {
 public:
  explicit InputFile(std::string_view content);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  std::filesystem::path path() const;

 private:
  int descriptor_;
};

/// Whether `read` came to its end; false when it threw Error(input) or Error(usage) of one line.
template <typename F>
bool reads(F&& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    const bool one_line = std::string_view(error.what()).find('\n') == std::string_view::npos;
    if (one_line && (error.code() == ErrorCode::input || error.code() == ErrorCode::usage)) {
      return false;
    }
    throw;
  }
}

/// Ends the program with `what` when `condition` does not hold.
void require(bool condition, const char* what);

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}
inline std::span<const std::byte> bytes_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const std::byte*>(data), size};
}

}  // namespace shardpipe::fuzz
