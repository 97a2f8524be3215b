#pragma once

#include <cstdlib>
#include <random>
#include <string>

namespace shardpipe::test {

/// `count` times SHARDPIPE_FUZZ_SCALE, at least one.
inline int fuzz_count(int count) {
  const char* scale = std::getenv("SHARDPIPE_FUZZ_SCALE");
  return std::max(1, static_cast<int>(count * (scale != nullptr ? std::atof(scale) : 1.0)));
}

/// From 0 to limit - 1, the same on every platform.
inline size_t draw(std::mt19937& random, size_t limit) {
  return random() % limit;
}

}  // namespace shardpipe::test
