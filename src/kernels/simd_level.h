#pragma once

#include <string>
#include <vector>

namespace shardpipe::kernels {

/// The instruction sets that the kernels are written for, each containing the one before it. `portable` is plain C++
/// on 4-float vectors (SSE2, NEON).
enum class SimdLevel { portable, avx2, avx512, avx512_bf16 };

/// "portable", "avx2", "avx512" or "avx512_bf16".
const char* to_string(SimdLevel level);

/// The highest level that this processor has (asked once).
SimdLevel highest_simd_level();

/// Every level that this processor has, lowest first.
std::vector<SimdLevel> available_simd_levels();

/// The level in use: the one forced, else $SHARDPIPE_SIMD (one of the names above), else the highest. Throws
/// Error(usage) when the environment names an unknown level or one that this processor lacks.
SimdLevel simd_level();

/// Forces a level in the whole process (tests, benchmarks); not while an operator runs. Throws Error(usage) when this
/// processor lacks it.
void force_simd_level(SimdLevel level);

}  // namespace shardpipe::kernels
