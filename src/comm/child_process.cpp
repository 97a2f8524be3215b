#include "comm/child_process.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

bool is_program(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored) && ::access(path.c_str(), X_OK) == 0;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> list;
  list.reserve(texts.size() + 1);
  for (const std::string& text : texts) {
    list.push_back(const_cast<char*>(text.c_str()));
  }
  list.push_back(nullptr);
  return list;
}

}  // namespace

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (is_program(name)) {
      return name;
    }
    throw_usage("cannot start '{}': it is not an executable file", name);
  }
  const char* variable = std::getenv("PATH");
  const std::string path = variable == nullptr ? "/usr/local/bin:/usr/bin:/bin" : variable;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find(':', begin), path.size());
    const std::string folder = path.substr(begin, end - begin);
    const std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (!name.empty() && is_program(candidate)) {
      return candidate;
    }
    begin = end + 1;
  }
  throw_usage("cannot start '{}': no such program in PATH", name);
}

std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& changes) {
  std::vector<std::string> list;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    if (std::none_of(changes.begin(), changes.end(), [&](const auto& change) { return change.first == name; })) {
      list.push_back(text);
    }
  }
  for (size_t i = 0; i < changes.size(); ++i) {
    // The last of equal names counts.
    const bool again = std::any_of(
        changes.begin() + static_cast<std::ptrdiff_t>(i) + 1, changes.end(),
        [&](const auto& later) { return later.first == changes[i].first; });
    if (!again) {
      list.push_back(changes[i].first + "=" + changes[i].second);
    }
  }
  return list;
}

pid_t start_process(
    const std::string& path,
    const std::vector<std::string>& arguments,
    const std::vector<std::string>& environment,
    const sigset_t& mask) {
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);
  const pid_t parent = ::getpid();
  volatile int problem = 0;
  // The child borrows our memory and this thread until it executes the program, so only system calls are made there.
  // Unlike posix_spawn this lets it ask for the kernel's signal first, so that no program has to take part in it.
  const pid_t pid = ::vfork();
  if (pid == 0) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
      problem = errno;
      ::_exit(127);
    }
    if (::getppid() != parent) {
      ::_exit(127);  // the parent died before the request
    }
    ::sigprocmask(SIG_SETMASK, &mask, nullptr);
    ::execve(path.c_str(), argv.data(), envp.data());
    problem = errno;
    ::_exit(127);
  }
  if (pid < 0) {
    problem = errno;
  }
  if (problem != 0) {
    if (pid > 0) {
      ::waitpid(pid, nullptr, 0);
    }
    throw_rank("cannot start {}: {}", path, std::strerror(problem));
  }
  return pid;
}

std::vector<pid_t> children_of_this_process() {
  std::vector<pid_t> children;
  std::error_code ignored;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
    std::ifstream file(thread.path() / "children");
    pid_t child = 0;
    while (file >> child) {
      children.push_back(child);
    }
  }
  return children;
}

std::string describe_signal(int signal) {
  const char* name = ::sigdescr_np(signal);
  std::string text = name == nullptr ? "unknown" : name;
  text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  return fmt::format("signal {}, {}", signal, text);
}

}  // namespace shardpipe::comm
