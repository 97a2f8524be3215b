#pragma once

#include <c10/core/ScalarType.h>

#include <optional>
#include <vector>

#include "kernels/choice.h"
#include "partition/balance.h"

namespace shardpipe::plan {

/// What this machine does in a second with `threads` threads of this process: products of `dtype` by the kernels of
/// `choice` (PyTorch's own without one), some 50 ms, medians. Messages are not measured: those of Rates.
partition::Rates measure_rates(at::ScalarType dtype, int threads, const std::optional<kernels::KernelChoice>& choice);

/// Of one of `active` ranks that work at the same time on one host: `alone`, but no more than its part of `host`, what
/// one process does with all cores.
partition::Rates shared_rates(const partition::Rates& alone, const partition::Rates& host, int active);

/// The median of numbers, at least one.
double median(std::vector<double> numbers);

}  // namespace shardpipe::plan
