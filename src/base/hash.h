#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace shardpipe {

// Hashes that tell a damaged or mixed-up file, not a forged one.

/// FNV-1a, 64 bits.
uint64_t fnv1a(std::string_view text);

/// For large content, several GB/s: FNV's step on words of 8 bytes in four lanes. A change of one word always changes
/// the hash. Given in pieces, every piece but the last has a multiple of 32 bytes.
class ContentHash {
 public:
  void add(std::span<const std::byte> bytes);
  uint64_t value() const;

 private:
  static constexpr size_t kLanes = 4;
  uint64_t lanes_[kLanes] = {1, 2, 3, 4};
  uint64_t size_bytes_ = 0;
};

}  // namespace shardpipe
