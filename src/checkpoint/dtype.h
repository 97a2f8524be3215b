#pragma once

#include <c10/core/ScalarType.h>

#include <string_view>

namespace shardpipe::checkpoint {

/// One element type of the safetensors format, as the `safetensors` package 0.8 knows them.
struct Dtype {
  std::string_view name;  ///< as written in a header: "F32"
  c10::ScalarType type;   ///< torch's type; Undefined where torch has none (F6_E2M3, F6_E3M2)
  int bits;               ///< of one element in the file; F4 packs two elements into one torch element
};

/// The row of a header's dtype name, or of a torch type; nullptr when the format does not have it.
const Dtype* find_dtype(std::string_view name);
const Dtype* find_dtype(c10::ScalarType type);

}  // namespace shardpipe::checkpoint
