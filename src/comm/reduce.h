#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <span>

namespace shardpipe::comm {

enum class ReduceOp { sum, product, min, max };
const char* to_string(ReduceOp op);

/// out[i] = ins[0][i] op ins[1][i] op ..., from left to right, elements of `type`. Types of 16 and 8 bits are combined
/// in float32 and rounded once. Integers wrap around; of booleans sum and max are "or", product and min "and". NaN is
/// not lost by min and max. `out` may be one of `ins`, but not overlap one otherwise. Throws Error(internal) for types
/// that have no such operation (complex min and max, quantised types).
void reduce(c10::ScalarType type, ReduceOp op, void* out, std::span<const void* const> ins, int64_t numel);

}  // namespace shardpipe::comm
