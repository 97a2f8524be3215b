// The kernels compiled for avx2. Every function between push and pop uses these instructions and is reached through the
// table only, after the processor was asked.
#include "kernels/simd_includes.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace shardpipe::kernels {
namespace {
#include "kernels/vec_avx2.inc"

#include "kernels/kernels.inc"
}  // namespace
}  // namespace shardpipe::kernels
#pragma GCC pop_options

namespace shardpipe::kernels {
const KernelTables& avx2_kernels() {
  static constexpr KernelTables tables{make_table<float>(), make_table<c10::BFloat16>()};
  return tables;
}
}  // namespace shardpipe::kernels

#else
namespace shardpipe::kernels {
const KernelTables& avx2_kernels() {
  return portable_kernels();
}
}  // namespace shardpipe::kernels
#endif
