#pragma once

#include <cstdint>
#include <string_view>

namespace shardpipe::checkpoint {

/// The types of elements that files name. The parsers' own, so that they do without torch (which is a compiler's work
/// of minutes and has no place in a fuzzer); scalar_type.h turns them into torch's.
enum class ElementType : uint8_t {
  undefined,
  float64,
  float32,
  float16,
  bfloat16,
  int64,
  int32,
  int16,
  int8,
  uint64,
  uint32,
  uint16,
  uint8,
  boolean,
  complex32,
  complex64,
  complex128,
  float8_e4m3fn,
  float8_e5m2,
  float8_e4m3fnuz,
  float8_e5m2fnuz,
  float8_e8m0fnu,
  float4_e2m1fn_x2,
  float6_e2m3,
  float6_e3m2,
};

/// How the formats write a type. Empty, or 0: the format does not have it.
struct ElementFormat {
  ElementType type;
  int bits;                      ///< of one element in a safetensors file: F4 packs two into one of torch's
  std::string_view safetensors;  ///< in a header, as the `safetensors` package 0.8 has it: "F32"
  std::string_view torch;        ///< in a pickle: "float32"
  std::string_view storage;      ///< the class of its storages in a pickle: "FloatStorage"
  int64_t exported;              ///< in a torch.export archive (torch/_export/serde/schema.py)
};

/// The row of a type; of what a format calls one. nullptr when there is none.
const ElementFormat* find_format(ElementType type);
const ElementFormat* find_safetensors_type(std::string_view name);
const ElementFormat* find_torch_type(std::string_view name);
const ElementFormat* find_storage_type(std::string_view name);
const ElementFormat* find_exported_type(int64_t number);

}  // namespace shardpipe::checkpoint
