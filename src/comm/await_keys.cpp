#include "comm/await_keys.h"

#include <algorithm>
#include <thread>

namespace shardpipe::comm {

bool await_keys(
    Store& store, Monitor& monitor, const std::vector<std::string>& keys, std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  std::chrono::microseconds pause(50);
  while (!store.has(keys)) {
    monitor.check();
    if (Clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(10'000));
  }
  return true;
}

}  // namespace shardpipe::comm
