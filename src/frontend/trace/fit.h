#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/size.h"

namespace shardpipe::trace {

/// The sizes of the named dimensions in each traced run: run 0 is the base; two runs for each dimension change only it;
/// one run for each pair of dimensions changes both; the last run changes all of them to sizes not seen before.
std::vector<graph::Dimensions> probe_sizes(const std::vector<std::string>& dimensions);

/// The polynomial that takes the given value in each run of probe_sizes(): any of degree 0 to 2, or a multiple of a
/// product of powers (batch*seq*seq); nullopt when none fits all runs.
std::optional<graph::Size> fit_size(
    const std::vector<std::string>& dimensions,
    std::span<const graph::Dimensions> runs,
    std::span<const int64_t> values);

}  // namespace shardpipe::trace
