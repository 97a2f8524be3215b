#include "kernels/simd_level.h"

#include <array>
#include <atomic>
#include <cstdlib>

#include "base/error.h"

namespace shardpipe::kernels {
namespace {

constexpr std::array kLevels{SimdLevel::portable, SimdLevel::avx2, SimdLevel::avx512, SimdLevel::avx512_bf16};

SimdLevel probe() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) {
    return __builtin_cpu_supports("avx512bf16") ? SimdLevel::avx512_bf16 : SimdLevel::avx512;
  }
  return avx2 ? SimdLevel::avx2 : SimdLevel::portable;
#else
  return SimdLevel::portable;
#endif
}

void require_available(SimdLevel level) {
  if (level > highest_simd_level()) {
    throw_usage(
        "SIMD level '{}' is not available: this processor has at most '{}'", to_string(level),
        to_string(highest_simd_level()));
  }
}

SimdLevel from_environment() {
  const char* name = std::getenv("SHARDPIPE_SIMD");
  if (name == nullptr || *name == '\0') {
    return highest_simd_level();
  }
  for (SimdLevel level : kLevels) {
    if (std::string(name) == to_string(level)) {
      require_available(level);
      return level;
    }
  }
  throw_usage("SHARDPIPE_SIMD is '{}': expected portable, avx2, avx512 or avx512_bf16", name);
}

constexpr int kUnset = -1;
std::atomic<int> current{kUnset};

}  // namespace

const char* to_string(SimdLevel level) {
  switch (level) {
    case SimdLevel::portable:
      return "portable";
    case SimdLevel::avx2:
      return "avx2";
    case SimdLevel::avx512:
      return "avx512";
    case SimdLevel::avx512_bf16:
      return "avx512_bf16";
  }
  return "?";
}

SimdLevel highest_simd_level() {
  static const SimdLevel level = probe();
  return level;
}

std::vector<SimdLevel> available_simd_levels() {
  std::vector<SimdLevel> levels;
  for (SimdLevel level : kLevels) {
    if (level <= highest_simd_level()) {
      levels.push_back(level);
    }
  }
  return levels;
}

SimdLevel simd_level() {
  int level = current.load(std::memory_order_relaxed);
  if (level == kUnset) {
    level = static_cast<int>(from_environment());
    current.store(level, std::memory_order_relaxed);
  }
  return static_cast<SimdLevel>(level);
}

void force_simd_level(SimdLevel level) {
  require_available(level);
  current.store(static_cast<int>(level), std::memory_order_relaxed);
}

}  // namespace shardpipe::kernels
