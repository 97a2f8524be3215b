#include "comm/reduce.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Float8_e4m3fnuz.h>
#include <c10/util/Float8_e5m2.h>
#include <c10/util/Float8_e5m2fnuz.h>
#include <c10/util/Half.h>
#include <c10/util/complex.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/error.h"

// The loops are compiled for several instruction sets and chosen from when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define SHARDPIPE_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SHARDPIPE_CLONES
#endif

namespace shardpipe::comm {
namespace {

struct Sum {
  template <typename T>
  static T combine(T a, T b) {
    return a + b;
  }
};
struct Product {
  template <typename T>
  static T combine(T a, T b) {
    return a * b;
  }
};
template <typename T>
bool is_nan(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::isnan(value);
  } else {
    return false;
  }
}
// A NaN on either side stays.
struct Min {
  template <typename T>
  static T combine(T a, T b) {
    return b < a || is_nan(b) ? b : a;
  }
};
struct Max {
  template <typename T>
  static T combine(T a, T b) {
    return a < b || is_nan(b) ? b : a;
  }
};

/// What elements of a type are combined in.
template <typename T>
struct Wide {
  using Type = float;  // the types of 16 and 8 bits
};
template <>
struct Wide<float> {
  using Type = float;
};
template <>
struct Wide<double> {
  using Type = double;
};
template <typename T>
struct Wide<c10::complex<T>> {
  using Type = c10::complex<T>;
};
template <typename T>
requires std::is_integral_v<T>
struct Wide<T> {
  using Type = T;
};

template <typename T, typename Op>
__attribute__((always_inline)) inline void combine(
    void* out_data, std::span<const void* const> ins, int64_t begin, int64_t end) {
  using W = typename Wide<T>::Type;
  T* out = static_cast<T*>(out_data);
  const T* first = static_cast<const T*>(ins[0]);
  if (ins.size() == 2) {
    const T* second = static_cast<const T*>(ins[1]);
#pragma GCC ivdep  // `out` may be an input, element by element
    for (int64_t i = begin; i < end; ++i) {
      out[i] = static_cast<T>(Op::combine(static_cast<W>(first[i]), static_cast<W>(second[i])));
    }
    return;
  }
  W sum[512];
  for (int64_t at = begin; at < end; at += std::ssize(sum)) {
    const int64_t count = std::min<int64_t>(std::ssize(sum), end - at);
    for (int64_t i = 0; i < count; ++i) {
      sum[i] = static_cast<W>(first[at + i]);
    }
    for (size_t k = 1; k < ins.size(); ++k) {
      const T* in = static_cast<const T*>(ins[k]) + at;
      for (int64_t i = 0; i < count; ++i) {
        sum[i] = Op::combine(sum[i], static_cast<W>(in[i]));
      }
    }
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      out[at + i] = static_cast<T>(sum[i]);
    }
  }
}

using Ins = std::span<const void* const>;

// Sums of these types are what matters; the attribute does not go on templates.
SHARDPIPE_CLONES void sum_float(void* out, Ins ins, int64_t numel) {
  combine<float, Sum>(out, ins, 0, numel);
}
SHARDPIPE_CLONES void sum_double(void* out, Ins ins, int64_t numel) {
  combine<double, Sum>(out, ins, 0, numel);
}
SHARDPIPE_CLONES void sum_bfloat16(void* out, Ins ins, int64_t numel) {
  combine<c10::BFloat16, Sum>(out, ins, 0, numel);
}
SHARDPIPE_CLONES void sum_half(void* out, Ins ins, int64_t numel) {
  combine<c10::Half, Sum>(out, ins, 0, numel);
}

template <typename Op>
void combine_any(c10::ScalarType type, ReduceOp op, void* out, Ins ins, int64_t numel) {
  const auto run = [&]<typename T>(T) { combine<T, Op>(out, ins, 0, numel); };
  switch (type) {
    case c10::ScalarType::Float:
      return run(float());
    case c10::ScalarType::Double:
      return run(double());
    case c10::ScalarType::BFloat16:
      return run(c10::BFloat16());
    case c10::ScalarType::Half:
      return run(c10::Half());
    // Unsigned arithmetic wraps around as the signed one of tensors does.
    case c10::ScalarType::Long:
      return std::is_same_v<Op, Sum> || std::is_same_v<Op, Product> ? run(uint64_t()) : run(int64_t());
    case c10::ScalarType::Int:
      return std::is_same_v<Op, Sum> || std::is_same_v<Op, Product> ? run(uint32_t()) : run(int32_t());
    case c10::ScalarType::Short:
      return run(int16_t());
    case c10::ScalarType::Char:
      return run(int8_t());
    case c10::ScalarType::Byte:
      return run(uint8_t());
    case c10::ScalarType::UInt16:
      return run(uint16_t());
    case c10::ScalarType::UInt32:
      return run(uint32_t());
    case c10::ScalarType::UInt64:
      return run(uint64_t());
    case c10::ScalarType::Float8_e4m3fn:
      return run(c10::Float8_e4m3fn());
    case c10::ScalarType::Float8_e4m3fnuz:
      return run(c10::Float8_e4m3fnuz());
    case c10::ScalarType::Float8_e5m2:
      return run(c10::Float8_e5m2());
    case c10::ScalarType::Float8_e5m2fnuz:
      return run(c10::Float8_e5m2fnuz());
    default:
      break;
  }
  if constexpr (std::is_same_v<Op, Sum> || std::is_same_v<Op, Product>) {
    if (type == c10::ScalarType::ComplexFloat) {
      return run(c10::complex<float>());
    }
    if (type == c10::ScalarType::ComplexDouble) {
      return run(c10::complex<double>());
    }
  }
  throw_internal("tensors of {} cannot be reduced by {}", c10::toString(type), to_string(op));
}

void reduce_sum(c10::ScalarType type, void* out, Ins ins, int64_t numel) {
  switch (type) {
    case c10::ScalarType::Float:
      return sum_float(out, ins, numel);
    case c10::ScalarType::Double:
      return sum_double(out, ins, numel);
    case c10::ScalarType::BFloat16:
      return sum_bfloat16(out, ins, numel);
    case c10::ScalarType::Half:
      return sum_half(out, ins, numel);
    default:
      return combine_any<Sum>(type, ReduceOp::sum, out, ins, numel);
  }
}

}  // namespace

const char* to_string(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return "sum";
    case ReduceOp::product:
      return "product";
    case ReduceOp::min:
      return "min";
    default:
      return "max";
  }
}

void reduce(c10::ScalarType type, ReduceOp op, void* out, Ins ins, int64_t numel) {
  if (type == c10::ScalarType::Bool) {
    // 0 and 1 as bytes.
    const bool any = op == ReduceOp::sum || op == ReduceOp::max;
    type = c10::ScalarType::Byte;
    op = any ? ReduceOp::max : ReduceOp::min;
  }
  switch (op) {
    case ReduceOp::sum:
      return reduce_sum(type, out, ins, numel);
    case ReduceOp::product:
      return combine_any<Product>(type, op, out, ins, numel);
    case ReduceOp::min:
      return combine_any<Min>(type, op, out, ins, numel);
    case ReduceOp::max:
      return combine_any<Max>(type, op, out, ins, numel);
  }
}

}  // namespace shardpipe::comm
