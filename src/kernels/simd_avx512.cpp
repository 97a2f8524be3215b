// The kernels compiled for avx512. Every function between push and pop uses these instructions and is reached through
// the table only, after the processor was asked.
#include "kernels/simd_includes.h"

#if defined(__x86_64__)
#include <immintrin.h>

// GCC 12 warns about the deliberately undefined operands inside its own intrinsics (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace shardpipe::kernels {
namespace {
#include "kernels/vec_avx512.inc"

#include "kernels/kernels.inc"
}  // namespace
}  // namespace shardpipe::kernels
#pragma GCC pop_options

namespace shardpipe::kernels {
const KernelTables& avx512_kernels() {
  static constexpr KernelTables tables{make_table<float>(), make_table<c10::BFloat16>()};
  return tables;
}
}  // namespace shardpipe::kernels

#else
namespace shardpipe::kernels {
const KernelTables& avx512_kernels() {
  return portable_kernels();
}
}  // namespace shardpipe::kernels
#endif
