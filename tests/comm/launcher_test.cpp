// Starting and ending jobs: variables, ports, hosts, signals, other launchers.
#include "comm/launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "base/error.h"
#include "comm/process.h"
#include "comm/socket.h"

namespace shardpipe::comm::test {
namespace {

using testing::HasSubstr;

std::string usage_error(const LaunchOptions& options) {
  try {
    launch(options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    return error.message();
  }
  return "no error";
}

TEST(Launcher, RefusesNonsense) {
  EXPECT_THAT(usage_error({.nproc = 0, .program = {"true"}}), HasSubstr("--nproc is 0, must be 1 to 65536"));
  EXPECT_THAT(usage_error({.nnodes = 0, .program = {"true"}}), HasSubstr("--nnodes is 0"));
  EXPECT_THAT(
      usage_error({.nproc = 65536, .nnodes = 2, .program = {"true"}}),
      HasSubstr("--nnodes is 2, must be 1 to 1 with --nproc 65536"));
  EXPECT_THAT(
      usage_error({.nnodes = 2, .node_rank = 2, .master = "h:1", .program = {"true"}}),
      HasSubstr("--node-rank is 2, must be 0 to 1"));
  EXPECT_THAT(
      usage_error({.nnodes = 2, .program = {"true"}}), HasSubstr("--nnodes is 2 but --master HOST:PORT is not given"));
  EXPECT_THAT(usage_error({}), HasSubstr("no program to launch"));
  EXPECT_THAT(
      usage_error({.program = {"no-such-program-anywhere"}}), HasSubstr("cannot start 'no-such-program-anywhere'"));
  for (const char* master : {"host", "host:", ":1", "host:x", "host:0", "host:70000", "host:1x"}) {
    EXPECT_THAT(
        usage_error({.master = master, .program = {"true"}}),
        HasSubstr(std::string("--master is '") + master + "', must be HOST:PORT"));
  }
}

TEST(Launcher, SetsTorchrunsVariables) {
  Process process(player({"launch", "2", "variables"}), {{"RANK", "77"}, {"WORLD_SIZE", "78"}});
  EXPECT_EQ(process.wait(), 0) << process.err;
  for (const char* line :
       {"RANK=0\n", "RANK=1\n", "WORLD_SIZE=2\n", "LOCAL_RANK=1\n", "LOCAL_WORLD_SIZE=2\n", "MASTER_ADDR=127.0.0.1\n",
        "MASTER_PORT=", "PLAYER=set by the launcher\n"}) {
    EXPECT_THAT(process.out, HasSubstr(line));
  }
}

TEST(Launcher, ProgramsOfAnyKind) {
  Process process(player({"launch", "3", "program", "sh", "-c", "echo $RANK of $WORLD_SIZE; exit 0"}));
  EXPECT_EQ(process.wait(), 0);
  EXPECT_THAT(process.out, HasSubstr("2 of 3\n"));
  Process failing(
      player({"launch", "2", "program", "sh", "-c", "test $RANK = 0 || { echo reason >&2; exit 9; }; sleep 100"}));
  EXPECT_EQ(failing.wait(20), 9);
  EXPECT_EQ(failing.err, "reason\n") << "what the program said is enough";
}

TEST(Launcher, BusyPort) {
  const Descriptor listening = listen_on("127.0.0.1", 0);
  const std::string at = "127.0.0.1:" + std::to_string(port_of(listening));
  Process process(player({"launch", "2", "--master", at, "nothing"}));
  EXPECT_EQ(process.wait(), 4);
  EXPECT_EQ(count(process.err, "\n"), 1);
  EXPECT_THAT(process.err, HasSubstr("error[rank]: cannot listen on " + at + ": Address already in use; hint: "));
}

TEST(Launcher, BusyPortOfRankZero) {
  const Descriptor listening = listen_on("127.0.0.1", 0);
  Process process(
      player({"nothing"}), {{"RANK", "0"},
                            {"WORLD_SIZE", "2"},
                            {"MASTER_ADDR", "127.0.0.1"},
                            {"MASTER_PORT", std::to_string(port_of(listening))}});
  EXPECT_EQ(process.wait(), 4);
  EXPECT_THAT(process.err, HasSubstr("error[rank]: cannot listen on 127.0.0.1:"));
}

TEST(Launcher, MasterCannotBeReached) {
  const std::string port = std::to_string(free_port());
  Process process(
      player({"nothing"}), {{"RANK", "1"},
                            {"WORLD_SIZE", "2"},
                            {"MASTER_ADDR", "127.0.0.1"},
                            {"MASTER_PORT", port},
                            {"SHARDPIPE_TEST_TIMEOUT_MS", "700"}});
  EXPECT_EQ(process.wait(), 4);
  EXPECT_THAT(
      process.err,
      HasSubstr("error[rank]: rank 1: cannot reach 127.0.0.1:" + port + ", where the ranks meet, within 0.7 s"));
  Process host(player(
      {"launch", "1", "--nnodes", "2", "--node-rank", "1", "--master", "127.0.0.1:" + port, "--timeout-ms", "700",
       "nothing"}));
  EXPECT_EQ(host.wait(), 4);
  EXPECT_THAT(host.err, HasSubstr("error[rank]: host 1: cannot reach 127.0.0.1:" + port));
}

TEST(Launcher, MissingRanksAreNamed) {
  Process process(
      player({"nothing"}), {{"RANK", "0"},
                            {"WORLD_SIZE", "3"},
                            {"MASTER_ADDR", "127.0.0.1"},
                            {"MASTER_PORT", std::to_string(free_port())},
                            {"SHARDPIPE_TEST_TIMEOUT_MS", "700"}});
  EXPECT_EQ(process.wait(), 4);
  EXPECT_THAT(process.err, HasSubstr("error[rank]: rank 0: ranks 1, 2 of 3 did not come to 127.0.0.1:"));
}

TEST(Launcher, RankThatExistsTwice) {
  const std::string port = std::to_string(free_port());
  const auto variables = [&](const char* rank, const char* size) {
    return Variables{
        {"RANK", rank},
        {"WORLD_SIZE", size},
        {"MASTER_ADDR", "127.0.0.1"},
        {"MASTER_PORT", port},
        {"SHARDPIPE_TEST_TIMEOUT_MS", "20000"}};
  };
  {
    Process first(player({"nothing"}), variables("0", "3"));
    Process second(player({"nothing"}), variables("1", "3"));
    Process third(player({"nothing"}), variables("1", "3"));
    const std::string lines = (first.wait(), second.wait(), third.wait(), first.err + second.err + third.err);
    EXPECT_EQ(count(lines, "error["), 1) << lines;
    EXPECT_THAT(lines, HasSubstr("error[rank]: rank 1 exists twice: as "));
  }
  Process first(player({"nothing"}), variables("0", "2"));
  Process second(player({"nothing"}), variables("1", "3"));
  Process third(player({"nothing"}), variables("2", "3"));
  const std::string lines = (first.wait(), second.wait(), third.wait(), first.err + second.err + third.err);
  EXPECT_THAT(lines, HasSubstr(" was started in a world of ")) << "any of the three may notice first";
}

TEST(Launcher, SeveralHosts) {
  const std::string master = "127.0.0.1:" + std::to_string(free_port());
  const auto host = [&](const char* number, const std::vector<std::string>& scenario) {
    std::vector<std::string> arguments = {"launch", "2", "--nnodes", "2", "--node-rank", number, "--master", master};
    arguments.insert(arguments.end(), scenario.begin(), scenario.end());
    return player(arguments);
  };
  {
    Process second(host("1", {"messages"}));
    Process first(host("0", {"messages"}));
    EXPECT_EQ(first.wait(), 0) << first.err;
    EXPECT_EQ(second.wait(), 0) << second.err;
    EXPECT_EQ(count(first.out + second.out, "done "), 4);
  }
  // A failure on one host ends the others with its status, and is printed once.
  Process first(host("0", {"misbehave", "throw", "3"}));
  Process second(host("1", {"misbehave", "throw", "3"}));
  EXPECT_EQ(first.wait(), 3);
  EXPECT_EQ(second.wait(), 3);
  EXPECT_EQ(first.err, "");
  EXPECT_EQ(count(second.err, "error[input]"), 1);
}

TEST(Launcher, EndsWithoutStragglers) {
  Process process(player({"launch", "3", "stays", "400"}));
  EXPECT_EQ(process.wait(), 0) << "ranks may end at different times";
  EXPECT_EQ(process.err, "");
  const std::string mark = "SHARDPIPE_TEST_MARK=leaves-" + std::to_string(::getpid());
  Process leaving(player({"launch", "2", "leave-child"}), {{"SHARDPIPE_TEST_MARK", mark.substr(mark.find('=') + 1)}});
  EXPECT_EQ(leaving.wait(), 0) << leaving.err;
  EXPECT_TRUE(none_left(mark));
}

TEST(Launcher, SignalsReachTheRanks) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string mark = "SHARDPIPE_TEST_MARK=signal-" + std::to_string(::getpid()) + "-" + std::to_string(signal);
    Process process(player({"launch", "2", "ring"}), {{"SHARDPIPE_TEST_MARK", mark.substr(mark.find('=') + 1)}});
    ASSERT_TRUE(process.read_until([](const std::string& out) { return all_ready(out, 2); }, 60));
    process.send(signal);
    EXPECT_EQ(process.wait(20), 128 + signal);
    EXPECT_EQ(process.err, "");
    EXPECT_TRUE(none_left(mark));
  }
}

TEST(Launcher, IgnoredSignalsStayIgnored) {
  Process process({"nohup", SHARDPIPE_RANK_PLAYER, "launch", "2", "stays", "1500"});
  ASSERT_TRUE(process.read_until([](const std::string& out) { return all_ready(out, 2); }, 60)) << process.err;
  process.send(SIGHUP);
  EXPECT_EQ(process.wait(), 0);
}

TEST(Launcher, KilledLauncherTakesItsRanksAlong) {
  for (int round = 0; round < 2 * fuzz_scale(); ++round) {
    const std::string mark =
        "SHARDPIPE_TEST_MARK=killed-" + std::to_string(::getpid()) + "-" + std::to_string(round) + ";";
    Process process(player({"launch", "3", "ring"}), {{"SHARDPIPE_TEST_MARK", mark.substr(mark.find('=') + 1)}});
    ASSERT_TRUE(process.read_until([](const std::string& out) { return all_ready(out, 3); }, 60));
    process.send(SIGKILL);
    EXPECT_EQ(process.wait(), -SIGKILL);
    EXPECT_TRUE(none_left(mark));
  }
}

const std::string kPython = SHARDPIPE_PYTHON;

TEST(Launcher, RanksOfTorchrun) {
  Process process(
      {kPython, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", std::to_string(free_port()),
       "--no-python", SHARDPIPE_RANK_PLAYER, "messages"});
  EXPECT_EQ(process.wait(120), 0) << process.err;
  EXPECT_EQ(count(process.out, "done "), 2) << process.out;
  Process failing(
      {kPython, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", std::to_string(free_port()),
       "--no-python", SHARDPIPE_RANK_PLAYER, "misbehave", "throw", "1"});
  EXPECT_NE(failing.wait(120), 0);
  EXPECT_EQ(count(failing.err, "error["), 1) << failing.err;
  EXPECT_THAT(failing.err, HasSubstr("is broken, rank 1"));
}

TEST(Launcher, PythonRanksOfOurs) {
  const std::string script =
      "import torch, torch.distributed as d; d.init_process_group('gloo'); t = torch.ones(3) * (d.get_rank() + 1); "
      "d.all_reduce(t); import os; os.write(1, b'sum %d\\n' % int(t[0])); d.destroy_process_group()";
  Process process(player({"launch", "2", "program", kPython, "-c", script}));
  EXPECT_EQ(process.wait(120), 0) << process.err;
  EXPECT_EQ(count(process.out, "sum 3\n"), 2) << process.out;
}

}  // namespace
}  // namespace shardpipe::comm::test
