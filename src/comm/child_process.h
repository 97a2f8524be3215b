#pragma once

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace shardpipe::comm {

/// The file that a program name stands for, by the rules of a shell. Throws Error(usage) when there is none.
std::string find_program(const std::string& name);

/// This process's environment with some variables replaced, as "NAME=value".
std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& changes);

/// Starts a program, which the kernel kills when the calling thread ends, however it ends. `mask`: signals blocked in
/// the program. Throws Error(rank) naming program and reason.
pid_t start_process(
    const std::string& path,
    const std::vector<std::string>& arguments,
    const std::vector<std::string>& environment,
    const sigset_t& mask);

/// The direct children of this process, as the kernel lists them.
std::vector<pid_t> children_of_this_process();

/// "signal 9, killed"
std::string describe_signal(int signal);

}  // namespace shardpipe::comm
