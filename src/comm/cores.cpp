#include "comm/cores.h"

#include <sched.h>

#include <cmath>
#include <fstream>
#include <limits>

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

double core_quota() {
  // So much time of processors in so long a period, in microseconds.
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0;
  double period = 0;
  const bool has_quota = static_cast<bool>(file >> quota >> period) && period > 0;
  return has_quota ? std::ceil(quota / period) : std::numeric_limits<double>::infinity();
}

}  // namespace shardpipe::comm
