#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace shardpipe::comm {

struct LaunchOptions {
  int nproc = 1;                     ///< ranks on this host
  int nnodes = 1;                    ///< hosts; launch() runs on each of them
  int node_rank = 0;                 ///< this host's number; host 0 serves the store
  std::string master;                ///< "host:port" of host 0; empty (one host only) = this host, a free port
  std::vector<std::string> program;  ///< what each rank runs, with its arguments; found in PATH as a shell does
  std::vector<std::pair<std::string, std::string>> environment;  ///< for the ranks, besides torchrun's variables
  std::chrono::milliseconds timeout{300'000};                    ///< for the hosts to meet
  std::chrono::milliseconds grace{3'000};  ///< how long the others may take to end after a rank failed
};

/// Runs the ranks of this host and returns when all have ended: 0, or the exit status of the first failure (of any
/// host): the failed rank's own status, 4 for one that a signal ended; then the line "error[rank]: rank 1 died (signal
/// 9, killed)" is printed here. 128 + signal when SIGINT, SIGTERM or SIGHUP ended the job; they are passed on to the
/// ranks.
///
/// The ranks get torchrun's variables, inherit everything else, and find the store in this process. None of them
/// outlives it, whatever ends it. To be called by one thread at a time; the ranks die with the thread. Throws
/// Error(usage) for numbers that make no sense and programs that do not exist, Error(rank) when the port is busy, host
/// 0 cannot be reached, or a process cannot be started.
int launch(const LaunchOptions& options);

}  // namespace shardpipe::comm
