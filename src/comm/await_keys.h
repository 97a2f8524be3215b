#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "comm/monitor.h"
#include "comm/store.h"

namespace shardpipe::comm {

/// Waits for keys that other ranks put into the store. False when one of them is not there within the timeout. Throws
/// the failure of a rank that is known meanwhile.
bool await_keys(
    Store& store, Monitor& monitor, const std::vector<std::string>& keys, std::chrono::milliseconds timeout);

}  // namespace shardpipe::comm
