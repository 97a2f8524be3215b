#pragma once

#include <ATen/core/ivalue.h>

#include <span>

#include "graph/graph.h"

namespace shardpipe::graph {

/// How many arguments it takes: one to three.
size_t num_arguments(ScalarOperator op);

/// Python's result for ints, floats and bools: / of ints is a float, // and % round down, a power of ints with a
/// negative exponent is a float, floor, ceil, trunc and round (half to even) give ints. Throws Error(internal) for a
/// division by zero, a result beyond 64 bits, and operands that are no numbers.
c10::IValue compute(ScalarOperator op, std::span<const c10::IValue> arguments);

}  // namespace shardpipe::graph
