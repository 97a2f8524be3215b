#include "checkpoint/element_type.h"

#include <algorithm>
#include <array>

namespace shardpipe::checkpoint {
namespace {

using enum ElementType;

constexpr std::array kFormats = {
    ElementFormat{float64, 64, "F64", "float64", "DoubleStorage", 8},
    ElementFormat{float32, 32, "F32", "float32", "FloatStorage", 7},
    ElementFormat{float16, 16, "F16", "float16", "HalfStorage", 6},
    ElementFormat{bfloat16, 16, "BF16", "bfloat16", "BFloat16Storage", 13},
    ElementFormat{int64, 64, "I64", "int64", "LongStorage", 5},
    ElementFormat{int32, 32, "I32", "int32", "IntStorage", 4},
    ElementFormat{int16, 16, "I16", "int16", "ShortStorage", 3},
    ElementFormat{int8, 8, "I8", "int8", "CharStorage", 2},
    ElementFormat{uint64, 64, "U64", "uint64", "", 35},
    ElementFormat{uint32, 32, "U32", "uint32", "", 34},
    ElementFormat{uint16, 16, "U16", "uint16", "", 28},
    ElementFormat{uint8, 8, "U8", "uint8", "ByteStorage", 1},
    ElementFormat{boolean, 8, "BOOL", "bool", "BoolStorage", 12},
    ElementFormat{complex32, 32, "", "complex32", "", 9},
    ElementFormat{complex64, 64, "C64", "complex64", "ComplexFloatStorage", 10},
    ElementFormat{complex128, 128, "", "complex128", "ComplexDoubleStorage", 11},
    ElementFormat{float8_e4m3fn, 8, "F8_E4M3", "float8_e4m3fn", "", 29},
    ElementFormat{float8_e5m2, 8, "F8_E5M2", "float8_e5m2", "", 30},
    ElementFormat{float8_e4m3fnuz, 8, "F8_E4M3FNUZ", "float8_e4m3fnuz", "", 31},
    ElementFormat{float8_e5m2fnuz, 8, "F8_E5M2FNUZ", "float8_e5m2fnuz", "", 32},
    ElementFormat{float8_e8m0fnu, 8, "F8_E8M0", "float8_e8m0fnu", "", 33},
    ElementFormat{float4_e2m1fn_x2, 4, "F4", "float4_e2m1fn_x2", "", 0},
    ElementFormat{float6_e2m3, 6, "F6_E2M3", "", "", 0},
    ElementFormat{float6_e3m2, 6, "F6_E3M2", "", "", 0},
};

// The row whose `column` is `value`, which is no empty one.
template <typename Column, typename Value>
const ElementFormat* find(Column ElementFormat::*column, const Value& value) {
  const auto* const row =
      std::find_if(kFormats.begin(), kFormats.end(), [&](const ElementFormat& r) { return r.*column == value; });
  return row == kFormats.end() || value == Value() ? nullptr : row;
}

}  // namespace

const ElementFormat* find_format(ElementType type) {
  return find(&ElementFormat::type, type);
}

const ElementFormat* find_safetensors_type(std::string_view name) {
  return find(&ElementFormat::safetensors, name);
}

const ElementFormat* find_torch_type(std::string_view name) {
  return find(&ElementFormat::torch, name);
}

const ElementFormat* find_storage_type(std::string_view name) {
  return find(&ElementFormat::storage, name);
}

const ElementFormat* find_exported_type(int64_t number) {
  return find(&ElementFormat::exported, number);
}

}  // namespace shardpipe::checkpoint
