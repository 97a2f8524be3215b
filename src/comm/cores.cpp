#include "comm/cores.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace shardpipe::comm {

std::vector<int> allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(static_cast<size_t>(core), &set)) {
        cores.push_back(core);
      }
    }
  }
  return cores;
}

double fillable_cores(size_t cores) {
  // So much time of processors in so long a period, in microseconds.
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0;
  double period = 0;
  const bool has_quota = static_cast<bool>(file >> quota >> period) && period > 0;
  const auto all = static_cast<double>(cores);
  return has_quota ? std::min(all, std::ceil(quota / period)) : all;
}

}  // namespace shardpipe::comm
