#pragma once

#include <functional>
#include <optional>
#include <string>

namespace shardpipe::comm {

/// What tells this process which rank it is. Made from the variables of whoever started it.
struct Environment {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;        ///< number among the ranks of this host; 0 when local_world_size is 0
  int local_world_size = 0;  ///< 0 = not said: World counts the ranks of this host when they meet
  std::string master_host;   ///< where the ranks meet; empty only for a world of one rank
  int master_port = 0;
  /// The launcher serves the store at master_host:master_port (torchrun, shardpipe launch); else rank 0 does.
  bool agent_store = false;
  /// Tells this job and this attempt from others that may share the store.
  std::string job = "job";
};

/// Reads one variable; nullptr when it is not set. The default reads the process's environment.
using VariableReader = std::function<const char*(const char*)>;

/// The first of these that is there:
///   torchrun, shardpipe launch  RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT TORCHELASTIC_*
///   Open MPI                    OMPI_COMM_WORLD_{RANK,SIZE,LOCAL_RANK,LOCAL_SIZE}
///   Slurm (srun)                SLURM_PROCID SLURM_NTASKS SLURM_LOCALID SLURM_JOB_NODELIST
/// MASTER_ADDR and MASTER_PORT are used wherever they are set; else a job of one host meets on 127.0.0.1, Slurm on the
/// first host of its list, and the port follows from the job's number. Nothing set: no value.
/// Throws Error(usage) naming the variable and its value when one is missing, not a number, or contradicts another.
std::optional<Environment> environment_from_variables(const VariableReader& read = {});

/// What tells the device with this number in this process from others of the host: CUDA_VISIBLE_DEVICES may have given
/// each process its own, so that all of them call theirs 0.
std::string device_on_host(int index, const VariableReader& read = {});

/// The first host of a Slurm node list: "gpu[03-05,9],login" -> "gpu03". Throws Error(usage) on unbalanced brackets.
std::string first_host(const std::string& node_list);

}  // namespace shardpipe::comm
