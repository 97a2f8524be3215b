// The bfloat16 product with the processor's own bfloat16 dot product; the other kernels are those of avx512.
#include "kernels/simd_includes.h"

#if defined(__x86_64__)
#include <immintrin.h>

// GCC 12 warns about the deliberately undefined operands inside its own intrinsics (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")
namespace shardpipe::kernels {
namespace {
#include "kernels/vec_avx512.inc"

#include "kernels/few_rows.inc"

// Lane i of the sum gains w[2i] x[2i] + w[2i+1] x[2i+1]; subnormal numbers count as zero.
struct PairStep {
  using F = __m512bh;
  static constexpr int64_t kStep = 32;
  static F load(const c10::BFloat16* p) { return reinterpret_cast<F>(_mm512_loadu_si512(p)); }
  static F load_n(const c10::BFloat16* p, int64_t n) {
    return reinterpret_cast<F>(_mm512_maskz_loadu_epi16(static_cast<__mmask32>((1U << n) - 1), p));
  }
  static Vec::F fma(F w, F x, Vec::F sum) { return _mm512_dpbf16_ps(sum, w, x); }
};
}  // namespace
}  // namespace shardpipe::kernels
#pragma GCC pop_options

namespace shardpipe::kernels {
const KernelTables& avx512_bf16_kernels() {
  static const KernelTables tables = [] {
    KernelTables t = avx512_kernels();
    t.bf16.product = &product<PairStep, c10::BFloat16>;
    return t;
  }();
  return tables;
}
}  // namespace shardpipe::kernels

#else
namespace shardpipe::kernels {
const KernelTables& avx512_bf16_kernels() {
  return portable_kernels();
}
}  // namespace shardpipe::kernels
#endif
