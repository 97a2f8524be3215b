#pragma once

// Programs that the tests start, watch and end.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "comm/socket.h"

namespace shardpipe::comm::test {

using Clock = std::chrono::steady_clock;
using Variables = std::vector<std::pair<std::string, std::string>>;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A child process with its output captured. Killed when it goes out of scope.
class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments, const Variables& variables = {}) {
    int out_pipe[2];
    int err_pipe[2];
    if (::pipe2(out_pipe, O_CLOEXEC) != 0 || ::pipe2(err_pipe, O_CLOEXEC) != 0) {
      throw std::runtime_error("pipe");
    }
    std::vector<char*> argv;
    for (const std::string& argument : arguments) {
      argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out_pipe[1], STDOUT_FILENO);
      ::dup2(err_pipe[1], STDERR_FILENO);
      ::close_range(3, ~0U, 0);  // Gloo leaves its sockets to programs that a rank starts
      for (const auto& [name, value] : variables) {
        ::setenv(name.c_str(), value.c_str(), 1);
      }
      ::execvp(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(out_pipe[1]);
    ::close(err_pipe[1]);
    out_fd_ = out_pipe[0];
    err_fd_ = err_pipe[0];
  }
  ~Process() {
    if (!ended_) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(out_fd_);
    ::close(err_fd_);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void send(int signal) const { ::kill(pid_, signal); }

  /// Reads until `done` says so of the output so far; false when the process ended or the time is over before.
  template <typename Done>
  bool read_until(const Done& done, double limit_seconds) {
    const Clock::time_point start = Clock::now();
    while (!done(out)) {
      if (seconds_since(start) > limit_seconds || !read_some(50)) {
        return false;
      }
    }
    return true;
  }

  /// Waits for the end and returns the exit status, or -signal; -1000 when the time is over.
  int wait(double limit_seconds = 60) {
    const Clock::time_point start = Clock::now();
    int status = 0;
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      read_some(5);
      if (seconds_since(start) > limit_seconds) {
        return -1000;
      }
    }
    ended_ = true;
    // What its own children still write is not waited for.
    while (read_some(0)) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::string out;
  std::string err;

 private:
  /// False when nothing came and nothing can come any more (or, with no time to wait, nothing is there).
  bool read_some(int limit_ms) {
    pollfd fds[2] = {{out_open_ ? out_fd_ : -1, POLLIN, 0}, {err_open_ ? err_fd_ : -1, POLLIN, 0}};
    if (!out_open_ && !err_open_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(limit_ms));
      return false;
    }
    if (::poll(fds, 2, limit_ms) <= 0) {
      return limit_ms > 0;
    }
    read_from(fds[0], out, out_open_);
    read_from(fds[1], err, err_open_);
    return true;
  }
  static void read_from(const pollfd& fd, std::string& text, bool& open) {
    if (fd.revents == 0) {
      return;
    }
    char buffer[4096];
    const ssize_t got = ::read(fd.fd, buffer, sizeof(buffer));
    open = got > 0;
    text.append(buffer, got > 0 ? got : 0);
  }

  pid_t pid_ = 0;
  int out_fd_ = -1;
  int err_fd_ = -1;
  bool out_open_ = true;
  bool err_open_ = true;
  bool ended_ = false;
};

inline std::vector<std::string> player(const std::vector<std::string>& arguments) {
  std::vector<std::string> command(1, SHARDPIPE_RANK_PLAYER);
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

inline int count(const std::string& text, const std::string& what) {
  int number = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++number;
  }
  return number;
}

/// Process numbers by rank, from the lines "ready RANK PID".
inline std::vector<pid_t> ready_ranks(const std::string& out, int num_ranks) {
  std::vector<pid_t> pids(num_ranks, 0);
  std::istringstream lines(out);
  for (std::string word; lines >> word;) {
    int rank = 0;
    pid_t pid = 0;
    if (word == "ready" && lines >> rank >> pid) {
      pids.at(rank) = pid;
    }
  }
  return pids;
}

inline bool all_ready(const std::string& out, int num_ranks) {
  return count(out, "ready ") == num_ranks && out.back() == '\n';
}

inline bool exists(pid_t pid) {
  // A dead process that nobody has waited for still has a number.
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text[name_end + 2] != 'Z' && text[name_end + 2] != 'X';
}

/// All processes that were started with this variable in their environment, by their environment: finds those whose
/// parents are gone, too.
inline std::vector<pid_t> processes_with(const std::string& variable) {
  std::vector<pid_t> pids;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) {
      continue;
    }
    std::ifstream file(entry.path() / "environ", std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    if (text.str().find(variable) != std::string::npos && exists(std::stoi(name))) {
      pids.push_back(std::stoi(name));
    }
  }
  return pids;
}

/// True once no such process is left, within the limit.
inline bool none_left(const std::string& variable, double limit_seconds = 5) {
  const Clock::time_point start = Clock::now();
  while (!processes_with(variable).empty()) {
    if (seconds_since(start) > limit_seconds) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

/// A port that nobody uses, below the range from which the system gives ports to connections: one of those could take
/// it before the test does.
inline int free_port() {
  static int next = 20'000 + ::getpid() * 37 % 10'000;
  while (true) {
    const int port = next++;
    try {
      listen_on("127.0.0.1", port);
      return port;
    } catch (const Error&) {
      // taken
    }
  }
}

/// Multiplies the repetitions of tests that kill processes at random moments.
inline int fuzz_scale() {
  const char* scale = std::getenv("SHARDPIPE_FUZZ_SCALE");
  return scale == nullptr ? 1 : std::max(1, std::atoi(scale));
}

}  // namespace shardpipe::comm::test
