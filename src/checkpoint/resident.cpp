#include "checkpoint/resident.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "base/error.h"

namespace shardpipe::checkpoint {

size_t resident_bytes(const MappedFile& file) {
  const auto first = reinterpret_cast<uintptr_t>(file.bytes().data());
  const uintptr_t last = first + file.size_bytes();
  std::ifstream smaps("/proc/self/smaps");
  if (!smaps) {
    throw Error(ErrorCode::io, fmt::format("cannot open /proc/self/smaps: {}", std::strerror(errno)));
  }
  size_t total = 0;
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long begin = 0;
    unsigned long end = 0;
    unsigned long kilobytes = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      inside = begin >= first && begin < last;
    } else if (inside && std::sscanf(line.c_str(), "Rss: %lu kB", &kilobytes) == 1) {
      total += kilobytes * 1024;
    }
  }
  return total;
}

void release_pages(const MappedFile& file, const void* data, size_t size_bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto mapping = reinterpret_cast<uintptr_t>(file.bytes().data());
  const auto begin = std::max(reinterpret_cast<uintptr_t>(data), mapping);
  const auto end = std::min(reinterpret_cast<uintptr_t>(data) + size_bytes, mapping + file.size_bytes());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = end / page * page;
  if (first < last) {
    // Advice on memory use: when the kernel refuses, nothing is lost.
    (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }
}

}  // namespace shardpipe::checkpoint
