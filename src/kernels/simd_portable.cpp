// The kernels in plain C++, for any processor, and the choice between the levels.
#include "kernels/simd_includes.h"
#include "kernels/simd_level.h"

namespace shardpipe::kernels {
namespace {
#include "kernels/vec_portable.inc"

#include "kernels/kernels.inc"
}  // namespace

const KernelTables& portable_kernels() {
  static constexpr KernelTables tables{make_table<float>(), make_table<c10::BFloat16>()};
  return tables;
}

const KernelTables& kernel_tables() {
  switch (simd_level()) {
    case SimdLevel::portable:
      return portable_kernels();
    case SimdLevel::avx2:
      return avx2_kernels();
    case SimdLevel::avx512:
      return avx512_kernels();
    case SimdLevel::avx512_bf16:
      return avx512_bf16_kernels();
  }
  return portable_kernels();
}

}  // namespace shardpipe::kernels
