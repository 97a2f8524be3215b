#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/size.h"

namespace shardpipe::trace {

/// The sizes of the named dimensions in the first runs: run 0 is the base, run 1 + i changes only dimension i, the last
/// two runs change all of them, to sizes not seen before: one alone agrees with a wrong sum once in a while. These tell
/// any sum of multiples of single dimensions, and any multiple of a product of powers.
std::vector<graph::Dimensions> first_probe_sizes(const std::vector<std::string>& dimensions);

/// The runs, none of `runs`, that may tell a polynomial of degree 2 of the dimensions that `values` varies with:
/// another size of each, and each pair changed. `runs` starts with first_probe_sizes().
std::vector<graph::Dimensions> further_probe_sizes(
    const std::vector<std::string>& dimensions,
    std::span<const graph::Dimensions> runs,
    std::span<const int64_t> values);

/// The polynomial that takes the given value in each run: any of degree 0 to 2, or a multiple of a product of powers
/// (batch*seq*seq); nullopt when none fits all runs, or when further runs are needed. `runs` as above.
std::optional<graph::Size> fit_size(
    const std::vector<std::string>& dimensions,
    std::span<const graph::Dimensions> runs,
    std::span<const int64_t> values);

}  // namespace shardpipe::trace
