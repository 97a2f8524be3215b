#include "checkpoint/dtype.h"

#include <array>

namespace shardpipe::checkpoint {
namespace {

using c10::ScalarType;

constexpr std::array kDtypes = {
    Dtype{"F64", ScalarType::Double, 64},
    Dtype{"F32", ScalarType::Float, 32},
    Dtype{"F16", ScalarType::Half, 16},
    Dtype{"BF16", ScalarType::BFloat16, 16},
    Dtype{"I64", ScalarType::Long, 64},
    Dtype{"I32", ScalarType::Int, 32},
    Dtype{"I16", ScalarType::Short, 16},
    Dtype{"I8", ScalarType::Char, 8},
    Dtype{"U64", ScalarType::UInt64, 64},
    Dtype{"U32", ScalarType::UInt32, 32},
    Dtype{"U16", ScalarType::UInt16, 16},
    Dtype{"U8", ScalarType::Byte, 8},
    Dtype{"BOOL", ScalarType::Bool, 8},
    Dtype{"C64", ScalarType::ComplexFloat, 64},
    Dtype{"F8_E4M3", ScalarType::Float8_e4m3fn, 8},
    Dtype{"F8_E5M2", ScalarType::Float8_e5m2, 8},
    Dtype{"F8_E4M3FNUZ", ScalarType::Float8_e4m3fnuz, 8},
    Dtype{"F8_E5M2FNUZ", ScalarType::Float8_e5m2fnuz, 8},
    Dtype{"F8_E8M0", ScalarType::Float8_e8m0fnu, 8},
    Dtype{"F4", ScalarType::Float4_e2m1fn_x2, 4},
    Dtype{"F6_E2M3", ScalarType::Undefined, 6},
    Dtype{"F6_E3M2", ScalarType::Undefined, 6},
};

}  // namespace

const Dtype* find_dtype(std::string_view name) {
  for (const Dtype& row : kDtypes) {
    if (row.name == name) {
      return &row;
    }
  }
  return nullptr;
}

const Dtype* find_dtype(c10::ScalarType type) {
  for (const Dtype& row : kDtypes) {
    if (row.type == type && type != ScalarType::Undefined) {
      return &row;
    }
  }
  return nullptr;
}

}  // namespace shardpipe::checkpoint
