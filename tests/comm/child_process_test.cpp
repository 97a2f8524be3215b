#include "comm/child_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

TEST(ChildProcess, FindsPrograms) {
  EXPECT_THAT(find_program("sh"), HasSubstr("/sh"));
  EXPECT_EQ(find_program("/bin/sh"), "/bin/sh");
  for (const char* bad : {"no-such-program-anywhere", "", "/etc/passwd", "/tmp"}) {
    try {
      find_program(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
      EXPECT_THAT(error.message(), HasSubstr(std::string("cannot start '") + bad + "'"));
    }
  }
}

TEST(ChildProcess, EnvironmentIsReplacedNotDoubled) {
  ::setenv("SHARDPIPE_TEST_A", "old", 1);
  const auto list =
      environment_with({{"SHARDPIPE_TEST_A", "first"}, {"SHARDPIPE_TEST_B", "b"}, {"SHARDPIPE_TEST_A", "last"}});
  ::unsetenv("SHARDPIPE_TEST_A");
  EXPECT_THAT(list, Contains("SHARDPIPE_TEST_A=last"));
  EXPECT_THAT(list, Not(Contains("SHARDPIPE_TEST_A=old")));
  EXPECT_THAT(list, Not(Contains("SHARDPIPE_TEST_A=first")));
  EXPECT_THAT(list, Contains("SHARDPIPE_TEST_B=b"));
  EXPECT_THAT(list, Contains(std::string("PATH=") + std::getenv("PATH")));
}

TEST(ChildProcess, StartsWithArgumentsAndEnvironment) {
  sigset_t none;
  sigemptyset(&none);
  const pid_t pid = start_process("/bin/sh", {"sh", "-c", "test \"$X$1\" = ab && exit 7", "sh", "b"}, {"X=a"}, none);
  EXPECT_THAT(children_of_this_process(), Contains(pid));
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_THAT(children_of_this_process(), Not(Contains(pid)));
}

TEST(ChildProcess, CannotStart) {
  sigset_t none;
  sigemptyset(&none);
  try {
    start_process("/etc/passwd", {"passwd"}, {}, none);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::rank);
    EXPECT_THAT(error.message(), HasSubstr("cannot start /etc/passwd: Permission denied"));
  }
}

TEST(ChildProcess, Signals) {
  EXPECT_EQ(describe_signal(9), "signal 9, killed");
  EXPECT_EQ(describe_signal(11), "signal 11, segmentation fault");
  EXPECT_EQ(describe_signal(200), "signal 200, unknown");
}

}  // namespace
}  // namespace shardpipe::comm
