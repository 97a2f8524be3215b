#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace shardpipe::kernels {

/// One range of outputs of y = x weight^T + bias: x [rows, in], weight [out, in], y [rows, out].
/// T is float or c10::BFloat16. Row i of y depends on row i of x only, and on neither `rows`, `begin` nor `end`.
template <typename T>
struct Product {
  const T* x = nullptr;
  int64_t x_stride = 0;  // elements from row to row, as the other strides
  int64_t rows = 0;
  int64_t in = 0;
  const T* weight = nullptr;
  int64_t weight_stride = 0;
  const T* bias = nullptr;  // [out] or null
  T* y = nullptr;           // element (row r, output n) is y[r * y_stride + n]
  int64_t y_stride = 0;
  int64_t begin = 0;  // outputs [begin, end)
  int64_t end = 0;
  const void* then = nullptr;  // the weights that this thread reads next, for prefetching; may be null
};

enum class Activation { silu, gelu, gelu_tanh, relu };

/// `groups` queries that share one K/V head against positions [0, length) of a cache row, softmax not yet normalised:
/// the queries' partial results are (largest score, sum of exp, sum of exp * v) in float32.
template <typename T>
struct DecodeChunk {
  const float* queries = nullptr;  // [groups, padded head_dim], already multiplied by the scale
  int64_t query_stride = 0;
  int64_t groups = 0;
  int64_t head_dim = 0;
  const T* keys = nullptr;  // [length, head_dim], rows `key_stride` apart
  int64_t key_stride = 0;
  const T* values = nullptr;
  int64_t value_stride = 0;
  int64_t length = 0;             // <= kDecodeChunk
  const float* slopes = nullptr;  // [groups], or null: what a score loses for each position back ...
  int64_t back = 0;               // ... of which the first key lies this many
  const float* bias = nullptr;  // [groups, bias_stride], or null: what a score gains; the middle column is for the ...
  int64_t bias_stride = 0;      // ... query's own position, the ones before it for keys so many back; odd
  float* partial = nullptr;     // [groups, head_dim + 2]: largest score, sum, accumulated values
};
constexpr int64_t kDecodeChunk = 256;  // positions; fixed, so that results do not depend on the number of threads

/// The inner loops for one element type T, compiled once for each SIMD level.
template <typename T>
struct KernelTable {
  void (*product)(const Product<T>&);
  /// out = act(gate) * up over n elements; gate, act(gate) and the product are each rounded to T. `out` may be `gate`.
  void (*gate)(const T* gate, const T* up, T* out, int64_t n, Activation activation);
  /// One row: sum = x + residual when residual is given (sum: where to put it), out = weight * T(v / rms(v)).
  void (*rms_norm)(const T* x, const T* residual, const T* weight, float eps, T* sum, T* out, int64_t n);
  /// One head: out[i] = x[i] cos[i] - x[i+half] sin[i], out[i+half] = x[i+half] cos[i] + x[i] sin[i], each operation
  /// rounded to T, cos and sin too.
  void (*rotary)(const T* x, const float* cos, const float* sin, T* out, int64_t half);
  void (*decode)(const DecodeChunk<T>&);
  /// Merges `chunks` partial results (each [head_dim + 2], `stride` apart) in their order into out [head_dim].
  void (*merge)(const float* partial, int64_t stride, int64_t chunks, int64_t head_dim, T* out);
};

struct KernelTables {
  KernelTable<float> f32;
  KernelTable<c10::BFloat16> bf16;
};

const KernelTables& portable_kernels();
const KernelTables& avx2_kernels();
const KernelTables& avx512_kernels();
const KernelTables& avx512_bf16_kernels();

/// The tables of the level in use (simd_level.h).
const KernelTables& kernel_tables();

template <typename T>
const KernelTable<T>& kernel_table() {
  if constexpr (std::is_same_v<T, float>) {
    return kernel_tables().f32;
  } else {
    return kernel_tables().bf16;
  }
}

}  // namespace shardpipe::kernels
