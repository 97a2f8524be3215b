#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "graph/size.h"

namespace shardpipe::trace {

/// The sizes of the named dimensions in each traced run: run 0 is the base, run 1 + i changes only dimension i, the last
/// run changes all of them.
std::vector<graph::Dimensions> probe_sizes(const std::vector<std::string>& dimensions);

/// The polynomial (constant, multiple of one dimension plus a constant, product of dimensions plus a constant, or sum of
/// multiples) that takes the given value in each run of probe_sizes(); nullopt when none of these fits all runs.
std::optional<graph::Size> fit_size(
    const std::vector<std::string>& dimensions, std::span<const graph::Dimensions> runs, std::span<const int64_t> values);

}  // namespace shardpipe::trace
