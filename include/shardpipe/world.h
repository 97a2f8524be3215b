#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "shardpipe/error.h"
#include "shardpipe/export.h"

namespace shardpipe {

/// The processes of a job and this one's place among them.
class SHARDPIPE_API World {
 public:
  /// The rank that torchrun, Open MPI, Slurm or `shardpipe launch` gave this process; a world of one when none did.
  /// Blocks until all ranks are there. `timeout_s`: longest time to meet, and longest single action later.
  /// `transport`: how ranks talk: "auto" (shared memory between those of one host, Gloo between others; NCCL between
  /// GPUs where this build has it and no two ranks share one), "gloo", "shm", "nccl".
  /// Throws Error(usage) for contradicting variables, and for shared memory between ranks that have none; Error(rank)
  /// when the ranks cannot meet.
  static World from_environment(double timeout_s = 300, const std::string& transport = "auto");
  ~World();
  World(World&&) noexcept;

  int rank() const;
  int size() const;

  /// Collects a text from every rank on rank 0 (in the order of ranks; empty elsewhere). Collective.
  std::vector<std::string> gather(const std::string& text);

  /// Says that this rank is done, so that its end is no failure. Call last.
  void finish();

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  World();
  std::unique_ptr<Impl> impl_;
};

/// Throws Error(usage) for names that are no transport, for those that this build does not have ("nccl"), and for those
/// that do not carry what is on the device (PlanOptions::device).
SHARDPIPE_API void check_transport(const std::string& name, const std::string& device = "cpu");

/// Throws Error(usage) for names that are no device, and where this process has none of them.
SHARDPIPE_API void check_device(const std::string& device);

/// Starts local processes of a program, one a rank.
struct LaunchOptions {
  int nproc = 1;                       ///< processes on this host
  int nnodes = 1;                      ///< hosts
  int node_rank = 0;                   ///< this host's number
  std::string master;                  ///< HOST:PORT where all meet; empty = this host, a free port
  std::vector<std::string> arguments;  ///< the program and its arguments
};

/// Runs them to their end and returns the exit status: 0, or that of the first that failed (4 when it died). None is
/// left behind, whatever happens. Throws Error(usage) for impossible numbers, Error(rank) for a busy port.
SHARDPIPE_API int launch(const LaunchOptions& options);

/// Whether this process was started as a rank (variables of torchrun, Open MPI, Slurm or launch() are set).
SHARDPIPE_API bool is_rank();

/// For the end of main(), with the Error that ended it: tells the other ranks of the job, prints the line unless
/// another rank's failure came first, and returns the status to exit with. Leave the process without much ado after it
/// (std::_Exit): other threads may hang in messages.
SHARDPIPE_API int fail(const Error& error);

}  // namespace shardpipe
