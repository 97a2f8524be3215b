#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace shardpipe::test {

/// The most memory that this process has had resident so far.
inline int64_t peak_kilobytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word == "VmHWM:") {
      status >> word;
      return std::stoll(word);
    }
  }
  return 0;
}

}  // namespace shardpipe::test
