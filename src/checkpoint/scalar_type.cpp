#include "checkpoint/scalar_type.h"

#include <array>
#include <utility>

namespace shardpipe::checkpoint {
namespace {

using c10::ScalarType;

constexpr std::array kTypes = {
    std::pair{ElementType::float64, ScalarType::Double},
    std::pair{ElementType::float32, ScalarType::Float},
    std::pair{ElementType::float16, ScalarType::Half},
    std::pair{ElementType::bfloat16, ScalarType::BFloat16},
    std::pair{ElementType::int64, ScalarType::Long},
    std::pair{ElementType::int32, ScalarType::Int},
    std::pair{ElementType::int16, ScalarType::Short},
    std::pair{ElementType::int8, ScalarType::Char},
    std::pair{ElementType::uint64, ScalarType::UInt64},
    std::pair{ElementType::uint32, ScalarType::UInt32},
    std::pair{ElementType::uint16, ScalarType::UInt16},
    std::pair{ElementType::uint8, ScalarType::Byte},
    std::pair{ElementType::boolean, ScalarType::Bool},
    std::pair{ElementType::complex32, ScalarType::ComplexHalf},
    std::pair{ElementType::complex64, ScalarType::ComplexFloat},
    std::pair{ElementType::complex128, ScalarType::ComplexDouble},
    std::pair{ElementType::float8_e4m3fn, ScalarType::Float8_e4m3fn},
    std::pair{ElementType::float8_e5m2, ScalarType::Float8_e5m2},
    std::pair{ElementType::float8_e4m3fnuz, ScalarType::Float8_e4m3fnuz},
    std::pair{ElementType::float8_e5m2fnuz, ScalarType::Float8_e5m2fnuz},
    std::pair{ElementType::float8_e8m0fnu, ScalarType::Float8_e8m0fnu},
    std::pair{ElementType::float4_e2m1fn_x2, ScalarType::Float4_e2m1fn_x2},
};

}  // namespace

ScalarType to_scalar_type(ElementType type) {
  for (const auto& [element, scalar] : kTypes) {
    if (element == type) {
      return scalar;
    }
  }
  return ScalarType::Undefined;
}

ElementType to_element_type(ScalarType type) {
  for (const auto& [element, scalar] : kTypes) {
    if (scalar == type) {
      return element;
    }
  }
  return ElementType::undefined;
}

std::string_view dtype_name(ScalarType type) {
  const ElementFormat* format = find_format(to_element_type(type));
  return format == nullptr || format->safetensors.empty() ? std::string_view(c10::toString(type)) : format->safetensors;
}

}  // namespace shardpipe::checkpoint
