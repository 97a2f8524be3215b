#include "checkpoint/pickle_globals.h"

#include <array>

namespace shardpipe::checkpoint {
namespace {

using c10::ScalarType;

struct Row {
  std::string_view module;
  std::string_view name;
  PickleGlobal meaning;
};

constexpr std::array kFunctions = {
    Row{"torch._utils", "_rebuild_tensor", PickleGlobal::rebuild_tensor},
    Row{"torch._utils", "_rebuild_tensor_v2", PickleGlobal::rebuild_tensor_v2},
    Row{"torch._utils", "_rebuild_tensor_v3", PickleGlobal::rebuild_tensor_v3},
    Row{"torch._utils", "_rebuild_parameter", PickleGlobal::rebuild_parameter},
    Row{"torch._utils", "_rebuild_parameter_with_state", PickleGlobal::rebuild_parameter_with_state},
    Row{"torch._tensor", "_rebuild_from_type_v2", PickleGlobal::rebuild_from_type},
    Row{"torch", "Tensor", PickleGlobal::tensor_class},
    Row{"torch._tensor", "Tensor", PickleGlobal::tensor_class},
    Row{"torch.nn.parameter", "Parameter", PickleGlobal::tensor_class},
    Row{"torch.nn.parameter", "Buffer", PickleGlobal::tensor_class},
    Row{"collections", "OrderedDict", PickleGlobal::ordered_dict},
    Row{"torch", "Size", PickleGlobal::container},
    Row{"builtins", "set", PickleGlobal::container},
    Row{"builtins", "frozenset", PickleGlobal::container},
    Row{"builtins", "list", PickleGlobal::container},
    Row{"builtins", "tuple", PickleGlobal::container},
    Row{"__builtin__", "set", PickleGlobal::container},  // protocol 2 writes Python 2's names
    Row{"__builtin__", "frozenset", PickleGlobal::container},
    Row{"torch", "device", PickleGlobal::opaque},
    Row{"builtins", "complex", PickleGlobal::opaque},
    Row{"__builtin__", "complex", PickleGlobal::opaque},
    Row{"builtins", "bytearray", PickleGlobal::opaque},
    Row{"__builtin__", "bytearray", PickleGlobal::opaque},
    Row{"__builtin__", "bytes", PickleGlobal::opaque},
    Row{"_codecs", "encode", PickleGlobal::opaque},
};

struct TypeRow {
  std::string_view storage;  // empty: saved as an untyped storage
  std::string_view dtype;
  ScalarType type;
};

constexpr std::array kTypes = {
    TypeRow{"FloatStorage", "float32", ScalarType::Float},
    TypeRow{"DoubleStorage", "float64", ScalarType::Double},
    TypeRow{"HalfStorage", "float16", ScalarType::Half},
    TypeRow{"BFloat16Storage", "bfloat16", ScalarType::BFloat16},
    TypeRow{"LongStorage", "int64", ScalarType::Long},
    TypeRow{"IntStorage", "int32", ScalarType::Int},
    TypeRow{"ShortStorage", "int16", ScalarType::Short},
    TypeRow{"CharStorage", "int8", ScalarType::Char},
    TypeRow{"ByteStorage", "uint8", ScalarType::Byte},
    TypeRow{"BoolStorage", "bool", ScalarType::Bool},
    TypeRow{"ComplexFloatStorage", "complex64", ScalarType::ComplexFloat},
    TypeRow{"ComplexDoubleStorage", "complex128", ScalarType::ComplexDouble},
    TypeRow{"", "complex32", ScalarType::ComplexHalf},
    TypeRow{"", "uint16", ScalarType::UInt16},
    TypeRow{"", "uint32", ScalarType::UInt32},
    TypeRow{"", "uint64", ScalarType::UInt64},
    TypeRow{"", "float8_e5m2", ScalarType::Float8_e5m2},
    TypeRow{"", "float8_e4m3fn", ScalarType::Float8_e4m3fn},
    TypeRow{"", "float8_e5m2fnuz", ScalarType::Float8_e5m2fnuz},
    TypeRow{"", "float8_e4m3fnuz", ScalarType::Float8_e4m3fnuz},
    TypeRow{"", "float8_e8m0fnu", ScalarType::Float8_e8m0fnu},
    TypeRow{"", "float4_e2m1fn_x2", ScalarType::Float4_e2m1fn_x2},
};

}  // namespace

std::optional<KnownGlobal> find_global(std::string_view module, std::string_view name) {
  for (const Row& row : kFunctions) {
    if (row.module == module && row.name == name) {
      return KnownGlobal{row.meaning};
    }
  }
  if (module == "torch") {
    for (const TypeRow& row : kTypes) {
      if (!name.empty() && row.storage == name) {
        return KnownGlobal{PickleGlobal::storage, row.type};
      }
      if (row.dtype == name) {
        return KnownGlobal{PickleGlobal::dtype, row.type};
      }
    }
  }
  if (module == "torch.storage" && name == "UntypedStorage") {
    return KnownGlobal{PickleGlobal::storage, ScalarType::Byte};
  }
  return std::nullopt;
}

}  // namespace shardpipe::checkpoint
