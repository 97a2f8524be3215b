#pragma once

#include <vector>

namespace shardpipe::comm {

/// Numbers of the cores that the calling thread may run on, ascending; none where the system does not say.
std::vector<int> allowed_cores();

/// How many cores this process may fill: the quota of its container, rounded up; infinite where it has none.
double core_quota();

}  // namespace shardpipe::comm
