#include "comm/environment.h"

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

class Variables {
 public:
  explicit Variables(const VariableReader& read) : read_(read) {}

  /// Empty counts as not set: that is how shells and batch systems clear a variable.
  std::optional<std::string> text(const char* name) const {
    const char* value = read_ ? read_(name) : std::getenv(name);
    return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
  }

  std::optional<int> number(const char* name, int lowest, int highest) const {
    const std::optional<std::string> value = text(name);
    if (!value) {
      return std::nullopt;
    }
    int number = 0;
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), number);
    if (error != std::errc() || end != value->data() + value->size() || number < lowest || number > highest) {
      throw_usage("environment variable {} is '{}', must be a number from {} to {}", name, *value, lowest, highest);
    }
    return number;
  }

 private:
  const VariableReader& read_;
};

constexpr int kMaxRanks = 65536;

struct Names {
  const char* rank;
  const char* world_size;
  const char* local_rank;
  const char* local_world_size;  ///< nullptr: the starter does not say
};

std::optional<Environment> read_ranks(const Variables& variables, const Names& names) {
  const std::optional<int> rank = variables.number(names.rank, 0, kMaxRanks - 1);
  const std::optional<int> size = variables.number(names.world_size, 1, kMaxRanks);
  if (!rank && !size) {
    return std::nullopt;
  }
  if (!rank || !size) {
    throw_usage(
        "environment variable {} is {} but {} is not set: both are needed", rank ? names.rank : names.world_size,
        rank ? *rank : *size, rank ? names.world_size : names.rank);
  }
  if (*rank >= *size) {
    throw_usage("environment variable {} is {}, must be below {} = {}", names.rank, *rank, names.world_size, *size);
  }
  Environment environment;
  environment.rank = *rank;
  environment.world_size = *size;
  if (names.local_world_size != nullptr) {
    if (const auto local_size = variables.number(names.local_world_size, 1, kMaxRanks)) {
      if (*local_size > *size) {
        throw_usage(
            "environment variable {} is {}, above {} = {}", names.local_world_size, *local_size, names.world_size,
            *size);
      }
      environment.local_world_size = *local_size;
    }
  }
  if (const auto local_rank = variables.number(names.local_rank, 0, kMaxRanks - 1)) {
    const int limit = environment.local_world_size > 0 ? environment.local_world_size : *size;
    if (*local_rank >= limit) {
      throw_usage(
          "environment variable {} is {}, must be below {} = {}", names.local_rank, *local_rank,
          environment.local_world_size > 0 ? names.local_world_size : names.world_size, limit);
    }
    environment.local_rank = *local_rank;
  }
  return environment;
}

/// A port for jobs whose starter names none: the same on all ranks, different for jobs beside each other, and below the
/// range from which the system hands out ports (FNV-1a).
int port_of_job(std::string_view job) {
  uint32_t hash = 2166136261u;
  for (const char c : job) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  }
  return 20000 + static_cast<int>(hash % 10000);
}

void read_master(const Variables& variables, Environment& environment) {
  if (const auto host = variables.text("MASTER_ADDR")) {
    environment.master_host = *host;
  }
  if (const auto port = variables.number("MASTER_PORT", 1, 65535)) {
    environment.master_port = *port;
  }
}

std::optional<Environment> from_torchrun(const Variables& variables) {
  auto environment = read_ranks(variables, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"});
  if (!environment) {
    return std::nullopt;
  }
  read_master(variables, *environment);
  if (environment->world_size > 1) {
    for (const char* name : {"MASTER_ADDR", "MASTER_PORT"}) {
      if (!variables.text(name)) {
        throw_usage(
            "environment variable WORLD_SIZE is {} but {} is not set: the ranks cannot meet", environment->world_size,
            name);
      }
    }
  }
  // torch writes Python's str(True).
  environment->agent_store = variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  environment->job = variables.text("TORCHELASTIC_RUN_ID").value_or("job") + "/" +
                     variables.text("TORCHELASTIC_RESTART_COUNT").value_or("0");
  return environment;
}

std::optional<Environment> from_open_mpi(const Variables& variables) {
  auto environment = read_ranks(
      variables,
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"});
  if (!environment) {
    return std::nullopt;
  }
  for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "OMPI_MCA_orte_hnp_uri"}) {
    if (const auto job = variables.text(name)) {
      environment->job = *job;
      break;
    }
  }
  read_master(variables, *environment);
  if (environment->world_size > 1) {
    if (environment->master_host.empty() && environment->local_world_size == environment->world_size) {
      environment->master_host = "127.0.0.1";
    }
    if (environment->master_host.empty()) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "environment variable OMPI_COMM_WORLD_SIZE is {} on several hosts but MASTER_ADDR is not set: the ranks "
              "cannot meet",
              environment->world_size),
          "mpirun -x MASTER_ADDR=<host of rank 0> ...");
    }
    if (environment->master_port == 0) {
      environment->master_port = port_of_job(environment->job);
    }
  }
  return environment;
}

std::optional<Environment> from_slurm(const Variables& variables) {
  // A step may have fewer tasks than its job.
  const char* size = variables.text("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  if (!variables.text("SLURM_PROCID")) {
    return std::nullopt;  // SLURM_NTASKS alone: inside an allocation, but not started by srun
  }
  auto environment = read_ranks(variables, {"SLURM_PROCID", size, "SLURM_LOCALID", nullptr});
  environment->job =
      variables.text("SLURM_JOB_ID").value_or("slurm") + "." + variables.text("SLURM_STEP_ID").value_or("0");
  read_master(variables, *environment);
  if (environment->world_size > 1) {
    if (environment->master_host.empty()) {
      auto nodes = variables.text("SLURM_STEP_NODELIST");
      if (!nodes) {
        nodes = variables.text("SLURM_JOB_NODELIST");
      }
      if (!nodes) {
        throw_usage(
            "environment variable {} is {} but neither MASTER_ADDR nor SLURM_JOB_NODELIST is set: the ranks cannot "
            "meet",
            size, environment->world_size);
      }
      environment->master_host = first_host(*nodes);
    }
    if (environment->master_port == 0) {
      environment->master_port = port_of_job(environment->job);
    }
  }
  return environment;
}

}  // namespace

std::optional<Environment> environment_from_variables(const VariableReader& read) {
  const Variables variables(read);
  auto environment = from_torchrun(variables);
  if (!environment) {
    environment = from_open_mpi(variables);
  }
  if (!environment) {
    environment = from_slurm(variables);
  }
  return environment;
}

std::string first_host(const std::string& node_list) {
  std::string host;
  for (size_t i = 0; i < node_list.size() && node_list[i] != ','; ++i) {
    if (node_list[i] != '[') {
      host += node_list[i];
      continue;
    }
    const size_t close = node_list.find(']', i);
    const size_t end = node_list.find_first_of(",-]", i + 1);
    if (close == std::string::npos || end == i + 1) {
      throw_usage("'{}' is not a Slurm node list: no host in the brackets at character {}", node_list, i + 1);
    }
    host += node_list.substr(i + 1, end - i - 1);
    i = close;
  }
  if (host.empty() || host.find(']') != std::string::npos) {
    throw_usage("'{}' is not a Slurm node list: it starts with no host", node_list);
  }
  return host;
}

std::string device_on_host(int index, const VariableReader& read) {
  const char* visible = read ? read("CUDA_VISIBLE_DEVICES") : std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible != nullptr) {
    std::istringstream list(visible);
    std::string name;
    for (int i = 0; std::getline(list, name, ','); ++i) {
      if (i == index) {
        return name;
      }
    }
  }
  return std::to_string(index);
}

}  // namespace shardpipe::comm
