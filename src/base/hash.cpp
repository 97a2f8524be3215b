#include "base/hash.h"

#include <algorithm>
#include <cstring>

namespace shardpipe {
namespace {

constexpr uint64_t kBasis = 14695981039346656037ULL;
constexpr uint64_t kPrime = 1099511628211ULL;

uint64_t step(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * kPrime;
  return hash ^ (hash >> 32);
}

}  // namespace

uint64_t fnv1a(std::string_view text) {
  uint64_t value = kBasis;
  for (const char c : text) {
    value = (value ^ static_cast<unsigned char>(c)) * kPrime;
  }
  return value;
}

void ContentHash::add(std::span<const std::byte> bytes) {
  size_bytes_ += bytes.size();
  for (size_t at = 0; at < bytes.size();) {
    uint64_t words[kLanes] = {};  // the end is filled up with zeros; the size tells how many
    const size_t count = std::min(sizeof(words), bytes.size() - at);
    std::memcpy(words, bytes.data() + at, count);
    for (size_t i = 0; i < kLanes; ++i) {
      lanes_[i] = step(lanes_[i], words[i]);
    }
    at += count;
  }
}

uint64_t ContentHash::value() const {
  uint64_t value = step(kBasis, size_bytes_);
  for (const uint64_t lane : lanes_) {
    value = step(value, lane);
  }
  return value;
}

}  // namespace shardpipe
