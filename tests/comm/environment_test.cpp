#include "comm/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

std::optional<Environment> read(const Variables& variables) {
  return environment_from_variables([&](const char* name) -> const char* {
    const auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  });
}

std::string usage_error(const Variables& variables) {
  try {
    read(variables);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    return error.message();
  }
  return "no error";
}

const Variables kTorchrun = {{"RANK", "5"},
                             {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_ADDR", "node0"},
                             {"MASTER_PORT", "29501"}};

Variables torchrun_with(const std::string& name, const std::string& value) {
  Variables variables = kTorchrun;
  variables[name] = value;
  return variables;
}

TEST(Environment, NothingIsSet) {
  EXPECT_FALSE(read({}).has_value());
  EXPECT_FALSE(read({{"MASTER_ADDR", "node0"}, {"RANK", ""}}).has_value());
}

TEST(Environment, Torchrun) {
  const Environment environment = read(kTorchrun).value();
  EXPECT_EQ(environment.rank, 5);
  EXPECT_EQ(environment.world_size, 8);
  EXPECT_EQ(environment.local_rank, 1);
  EXPECT_EQ(environment.local_world_size, 4);
  EXPECT_EQ(environment.master_host, "node0");
  EXPECT_EQ(environment.master_port, 29501);
  EXPECT_FALSE(environment.agent_store);
}

TEST(Environment, AgentStoreAndJob) {
  Variables variables = torchrun_with("TORCHELASTIC_USE_AGENT_STORE", "True");
  variables["TORCHELASTIC_RUN_ID"] = "abc";
  variables["TORCHELASTIC_RESTART_COUNT"] = "2";
  EXPECT_TRUE(read(variables)->agent_store);
  EXPECT_EQ(read(variables)->job, "abc/2");
  EXPECT_FALSE(read(torchrun_with("TORCHELASTIC_USE_AGENT_STORE", "False"))->agent_store);
}

TEST(Environment, OneRankNeedsNoMaster) {
  EXPECT_EQ(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}})->world_size, 1);
}

TEST(Environment, TorchrunGoesFirst) {
  Variables variables = kTorchrun;
  variables["SLURM_PROCID"] = "0";
  variables["SLURM_NTASKS"] = "2";
  variables["OMPI_COMM_WORLD_RANK"] = "1";
  variables["OMPI_COMM_WORLD_SIZE"] = "2";
  EXPECT_EQ(read(variables)->rank, 5);
}

TEST(Environment, OpenMpi) {
  Variables variables = {
      {"OMPI_COMM_WORLD_RANK", "1"},
      {"OMPI_COMM_WORLD_SIZE", "2"},
      {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
      {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
      {"PMIX_NAMESPACE", "3735"}};
  const Environment environment = read(variables).value();
  EXPECT_EQ(environment.rank, 1);
  EXPECT_EQ(environment.local_rank, 1);
  EXPECT_EQ(environment.local_world_size, 2);
  EXPECT_EQ(environment.master_host, "127.0.0.1");
  EXPECT_GE(environment.master_port, 20000);
  EXPECT_LT(environment.master_port, 30000);
  EXPECT_FALSE(environment.agent_store);
  variables["OMPI_COMM_WORLD_RANK"] = "0";
  EXPECT_EQ(read(variables)->master_port, environment.master_port) << "ranks of one job must agree";
  variables["PMIX_NAMESPACE"] = "3736";
  EXPECT_NE(read(variables)->master_port, environment.master_port) << "jobs beside each other must not meet";
  variables["MASTER_ADDR"] = "node7";
  variables["MASTER_PORT"] = "1234";
  EXPECT_EQ(read(variables)->master_host, "node7");
  EXPECT_EQ(read(variables)->master_port, 1234);
}

TEST(Environment, OpenMpiOnSeveralHostsNeedsMaster) {
  EXPECT_THAT(
      usage_error({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}),
      HasSubstr("OMPI_COMM_WORLD_SIZE is 4 on several hosts but MASTER_ADDR is not set"));
}

TEST(Environment, Slurm) {
  Variables variables = {
      {"SLURM_PROCID", "3"},
      {"SLURM_NTASKS", "4"},
      {"SLURM_LOCALID", "1"},
      {"SLURM_JOB_ID", "77"},
      {"SLURM_JOB_NODELIST", "gpu[07-08,11]"}};
  const Environment environment = read(variables).value();
  EXPECT_EQ(environment.rank, 3);
  EXPECT_EQ(environment.world_size, 4);
  EXPECT_EQ(environment.local_rank, 1);
  EXPECT_EQ(environment.local_world_size, 0);
  EXPECT_EQ(environment.master_host, "gpu07");
  EXPECT_GE(environment.master_port, 20000);
  variables["SLURM_STEP_NUM_TASKS"] = "8";
  variables["SLURM_STEP_NODELIST"] = "gpu11";
  EXPECT_EQ(read(variables)->world_size, 8) << "a step may be larger or smaller than its job's --ntasks";
  EXPECT_EQ(read(variables)->master_host, "gpu11");
  variables["MASTER_ADDR"] = "node0";
  EXPECT_EQ(read(variables)->master_host, "node0");
  EXPECT_FALSE(read({{"SLURM_NTASKS", "4"}}).has_value()) << "inside an allocation, but not started by srun";
}

TEST(Environment, DeviceOnHost) {
  const auto device = [](const char* visible, int index) {
    return device_on_host(index, [&](const char*) { return visible; });
  };
  EXPECT_EQ(device(nullptr, 2), "2");
  EXPECT_EQ(device("5,3,GPU-8932f937", 0), "5");
  EXPECT_EQ(device("5,3,GPU-8932f937", 2), "GPU-8932f937");
  EXPECT_EQ(device("5", 1), "1");
  EXPECT_EQ(device("", 0), "0");
}

TEST(Environment, SlurmWithoutHosts) {
  EXPECT_THAT(
      usage_error({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}}),
      HasSubstr("SLURM_NTASKS is 2 but neither MASTER_ADDR nor SLURM_JOB_NODELIST is set"));
}

TEST(Environment, FirstHost) {
  EXPECT_EQ(first_host("node1"), "node1");
  EXPECT_EQ(first_host("node1,node2"), "node1");
  EXPECT_EQ(first_host("node[01-04]"), "node01");
  EXPECT_EQ(first_host("node[7,9-12],login"), "node7");
  EXPECT_EQ(first_host("rack[2-3]-node[10-12].cluster"), "rack2-node10.cluster");
  for (const char* bad : {"", "[", "node[", "node[]", ",node", "node]x"}) {
    try {
      first_host(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_THAT(error.message(), HasSubstr("is not a Slurm node list"));
    }
  }
}

TEST(Environment, ErrorsNameVariableAndValue) {
  EXPECT_THAT(usage_error(torchrun_with("RANK", "x")), HasSubstr("RANK is 'x', must be a number from 0 to"));
  EXPECT_THAT(usage_error(torchrun_with("RANK", "-1")), HasSubstr("RANK is '-1'"));
  EXPECT_THAT(usage_error(torchrun_with("RANK", "1 ")), HasSubstr("RANK is '1 '"));
  EXPECT_THAT(usage_error(torchrun_with("RANK", "99999999999999")), HasSubstr("RANK is '99999999999999'"));
  EXPECT_THAT(usage_error(torchrun_with("RANK", "8")), HasSubstr("RANK is 8, must be below WORLD_SIZE = 8"));
  EXPECT_THAT(usage_error(torchrun_with("WORLD_SIZE", "0")), HasSubstr("WORLD_SIZE is '0'"));
  EXPECT_THAT(
      usage_error(torchrun_with("LOCAL_RANK", "4")), HasSubstr("LOCAL_RANK is 4, must be below LOCAL_WORLD_SIZE = 4"));
  EXPECT_THAT(
      usage_error(torchrun_with("LOCAL_WORLD_SIZE", "9")), HasSubstr("LOCAL_WORLD_SIZE is 9, above WORLD_SIZE = 8"));
  EXPECT_THAT(usage_error(torchrun_with("MASTER_PORT", "70000")), HasSubstr("MASTER_PORT is '70000'"));
  EXPECT_THAT(usage_error(torchrun_with("MASTER_ADDR", "")), HasSubstr("MASTER_ADDR is not set"));
  EXPECT_THAT(usage_error(torchrun_with("MASTER_PORT", "")), HasSubstr("MASTER_PORT is not set"));
  EXPECT_THAT(usage_error({{"RANK", "1"}}), HasSubstr("RANK is 1 but WORLD_SIZE is not set"));
  EXPECT_THAT(usage_error({{"WORLD_SIZE", "2"}}), HasSubstr("WORLD_SIZE is 2 but RANK is not set"));
  EXPECT_THAT(
      usage_error({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "3"}}),
      HasSubstr("LOCAL_RANK is 3, must be below WORLD_SIZE = 2"));
}

}  // namespace
}  // namespace shardpipe::comm
