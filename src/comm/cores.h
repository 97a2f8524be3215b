#pragma once

#include <cstddef>
#include <vector>

namespace shardpipe::comm {

/// Numbers of the cores that the calling thread may run on, ascending; none where the system does not say.
std::vector<int> allowed_cores();

/// How many of so many cores this process may fill: its container may have a quota, which is rounded up.
double fillable_cores(size_t cores);

}  // namespace shardpipe::comm
