#pragma once

#include <c10/core/ScalarType.h>

#include <string_view>

#include "checkpoint/element_type.h"

namespace shardpipe::checkpoint {

/// torch's type; Undefined where torch has none (float6_e2m3, float6_e3m2).
c10::ScalarType to_scalar_type(ElementType type);
/// undefined for a type that no file holds (quantized ones).
ElementType to_element_type(c10::ScalarType type);

/// The name in messages: as safetensors writes it, "BF16", else torch's.
std::string_view dtype_name(c10::ScalarType type);

}  // namespace shardpipe::checkpoint
