#include "comm/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "comm/bounded_store.h"
#include "comm/child_process.h"
#include "comm/failure.h"
#include "comm/socket.h"
#include "comm/store.h"

namespace shardpipe::comm {
namespace {

using Milliseconds = std::chrono::milliseconds;

struct Master {
  std::string host = "127.0.0.1";
  int port = 0;
};

Master parse_master(const std::string& text) {
  Master master;
  if (text.empty()) {
    return master;
  }
  const size_t colon = text.rfind(':');
  const char* end = text.data() + text.size();
  const char* digits = colon == std::string::npos ? end : text.data() + colon + 1;
  const auto [stop, error] = std::from_chars(digits, end, master.port);
  if (colon == 0 || digits == end || error != std::errc() || stop != end || master.port < 1 || master.port > 65535) {
    throw_usage("--master is '{}', must be HOST:PORT with a port from 1 to 65535", text);
  }
  master.host = text.substr(0, colon);
  return master;
}

void validate(const LaunchOptions& options) {
  if (options.nproc < 1 || options.nproc > 65536) {
    throw_usage("--nproc is {}, must be 1 to 65536", options.nproc);
  }
  if (options.nnodes < 1 || options.nnodes > 65536 / options.nproc) {
    throw_usage(
        "--nnodes is {}, must be 1 to {} with --nproc {}", options.nnodes, 65536 / options.nproc, options.nproc);
  }
  if (options.node_rank < 0 || options.node_rank >= options.nnodes) {
    throw_usage("--node-rank is {}, must be 0 to {}", options.node_rank, options.nnodes - 1);
  }
  if (options.nnodes > 1 && options.master.empty()) {
    throw_usage("--nnodes is {} but --master HOST:PORT is not given", options.nnodes);
  }
  if (options.program.empty()) {
    throw_usage("no program to launch");
  }
}

/// SIGCHLD and the signals that end a job arrive through a file descriptor while this lives.
class Signals {
 public:
  Signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGPIPE);  // of the store on another host; it is an error like others
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      // What is ignored (nohup, background jobs) stays so: once blocked it would arrive.
      struct sigaction action {};
      if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
        sigaddset(&set, signal);
      }
    }
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
    // Where SIGCHLD is ignored, the kernel would forget how children ended.
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    ::sigaction(SIGCHLD, &standard, &child_action_);
    fd_ = Descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~Signals() {
    ::sigaction(SIGCHLD, &child_action_, nullptr);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  const sigset_t& mask_before() const { return before_; }

  struct Ending {
    int signal = 0;
    bool from_terminal = false;  ///< the terminal sends to all processes of the job itself
  };
  /// Sleeps until a signal comes or the time is over. The signal that asks to end, if one came.
  std::optional<Ending> wait(Milliseconds limit) {
    pollfd poll_fd{fd_.get(), POLLIN, 0};
    ::poll(&poll_fd, 1, static_cast<int>(limit.count()));
    std::optional<Ending> ending;
    signalfd_siginfo info{};
    while (::read(fd_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
      if (info.ssi_signo != SIGCHLD && info.ssi_signo != SIGPIPE) {
        ending = {static_cast<int>(info.ssi_signo), info.ssi_code == SI_KERNEL};
      }
    }
    return ending;
  }

 private:
  sigset_t before_{};
  struct sigaction child_action_ {};
  Descriptor fd_;
};

/// Ranks of this host, and how the job ends.
class Launch {
 public:
  Launch(const LaunchOptions& options, Store store, std::string job, const Master& master, Signals& signals)
      : options_(options),
        port_(store.port()),
        store_(std::move(store)),
        job_(std::move(job)),
        master_(master),
        signals_(signals) {}
  /// Only an exception leaves ranks running.
  ~Launch() { kill_all(SIGKILL), reap(true); }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  void start(const std::string& path);
  int run();

 private:
  struct Rank {
    int number = 0;
    pid_t pid = 0;  ///< 0 once it ended
  };

  void kill_all(int signal) const;
  void reap(bool block);
  void ended(int rank, int wait_status);
  void failed(int rank, int status, const std::optional<Error>& error);
  bool joined(int rank);
  void wait_for_hosts();
  bool running() const {
    return std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.pid != 0; });
  }

  const LaunchOptions& options_;
  int port_;
  BoundedStore store_;
  std::string job_;
  Master master_;
  Signals& signals_;
  std::vector<Rank> ranks_;
  int status_ = 0;
  int ending_signal_ = 0;
  std::optional<Clock::time_point> failed_at_;
};

void Launch::start(const std::string& path) {
  for (int local = 0; local < options_.nproc; ++local) {
    const int number = options_.node_rank * options_.nproc + local;
    std::vector<std::pair<std::string, std::string>> variables = options_.environment;
    const auto set = [&](const char* name, auto value) { variables.emplace_back(name, fmt::format("{}", value)); };
    set("RANK", number);
    set("WORLD_SIZE", options_.nnodes * options_.nproc);
    set("LOCAL_RANK", local);
    set("LOCAL_WORLD_SIZE", options_.nproc);
    set("GROUP_RANK", options_.node_rank);
    set("MASTER_ADDR", master_.host);
    set("MASTER_PORT", port_);
    set("TORCHELASTIC_RUN_ID", job_);
    set("TORCHELASTIC_RESTART_COUNT", 0);
    set("TORCHELASTIC_USE_AGENT_STORE", "True");
    const pid_t pid = start_process(path, options_.program, environment_with(variables), signals_.mask_before());
    ranks_.push_back({number, pid});
  }
}

int Launch::run() {
  bool terminated = false;
  bool killed = false;
  while (running()) {
    Milliseconds limit(60'000);
    if (failed_at_) {
      const auto since = std::chrono::duration_cast<Milliseconds>(Clock::now() - *failed_at_);
      const Milliseconds until_kill = options_.grace + Milliseconds(2'000);
      if (since >= until_kill && !killed) {
        kill_all(SIGKILL);
        killed = true;
      } else if (since >= options_.grace && !terminated) {
        kill_all(SIGTERM);
        kill_all(SIGCONT);  // one that was stopped cannot end
        terminated = true;
      }
      limit = killed ? Milliseconds(60'000) : (terminated ? until_kill : options_.grace) - since + Milliseconds(1);
    }
    if (const auto ending = signals_.wait(limit)) {
      if (!ending->from_terminal) {
        kill_all(ending->signal);
      }
      ending_signal_ = ending->signal;
      if (!failed_at_) {
        failed_at_ = Clock::now();
      }
    }
    reap(false);
  }
  if (options_.nnodes > 1) {
    wait_for_hosts();
  }
  return ending_signal_ != 0 ? 128 + ending_signal_ : status_;
}

void Launch::kill_all(int signal) const {
  for (const Rank& rank : ranks_) {
    if (rank.pid != 0) {
      ::kill(rank.pid, signal);
    }
  }
}

void Launch::reap(bool block) {
  for (Rank& rank : ranks_) {
    int wait_status = 0;
    if (rank.pid != 0 && ::waitpid(rank.pid, &wait_status, block ? 0 : WNOHANG) == rank.pid) {
      rank.pid = 0;
      if (!block) {
        ended(rank.number, wait_status);
      }
    }
  }
}

void Launch::ended(int rank, int wait_status) {
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) {
    return;
  }
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    log_info("rank {} died ({})", rank, describe_signal(signal));
    failed(
        rank, 4,
        Error(
            ErrorCode::rank, fmt::format("rank {} died ({})", rank, describe_signal(signal)),
            signal == SIGKILL ? "the system kills a process when memory runs out" : ""));
    return;
  }
  const int status = WEXITSTATUS(wait_status);
  log_info("rank {} ended with status {}", rank, status);
  // A rank that met the others reports its failure to the store. One that failed before has said why itself.
  failed(
      rank, status,
      joined(rank)
          ? std::optional<Error>(
                {ErrorCode::rank, fmt::format("rank {} ended with status {} and gave no reason", rank, status)})
          : std::nullopt);
}

/// A rank of this host ended badly. The first failure of the job decides; it may be known already.
void Launch::failed(int rank, int status, const std::optional<Error>& error) {
  if (failed_at_) {
    return;
  }
  failed_at_ = Clock::now();
  status_ = status;
  if (ending_signal_ != 0) {
    return;
  }
  const std::string author = unique_author();
  FailureRecord record = FailureRecord::from_error(
      rank, error.value_or(Error(ErrorCode::rank, fmt::format("rank {} ended with status {}", rank, status))), author);
  record.status = status;
  try {
    const FailureRecord first = FailureRecord::from_text(
        store_.ask([text = record.to_text()](Store& store) { return store.set_first(kFailureKey, text); }));
    status_ = first.status;
    if (first.author != author) {
      return;
    }
  } catch (const std::exception& problem) {
    log_info("store: {}", one_line(problem.what()));
  }
  if (error) {
    print_error_line(error->what());
  }
}

bool Launch::joined(int rank) {
  try {
    return store_.ask([rank](Store& store) { return store.has({fmt::format("world0/member/{}", rank)}); });
  } catch (const std::exception&) {
    return false;
  }
}

/// Host 0 serves the store until the other hosts are done, or after a failure until they had the time to learn of it;
/// all return the first failure of any.
void Launch::wait_for_hosts() {
  const auto count = [this](int64_t more) {
    return store_.ask([more](Store& store) { return store.add("hosts_done", more); });
  };
  try {
    int64_t done = count(1);
    while (options_.node_rank == 0 && done < options_.nnodes) {
      if (!failed_at_) {
        if (const auto text = store_.ask([](Store& store) { return store.find(kFailureKey); })) {
          status_ = FailureRecord::from_text(*text).status;
          failed_at_ = Clock::now();
        }
      } else if (Clock::now() - *failed_at_ > options_.grace) {
        return;
      }
      if (const auto ending = signals_.wait(Milliseconds(50))) {
        ending_signal_ = ending->signal;
        return;
      }
      done = count(0);
    }
  } catch (const std::exception& problem) {
    // This host's ranks ended well, so whatever ended host 0 is not this host's failure.
    log_info("store: {}", one_line(problem.what()));
  }
}

/// Programs that the ranks started and left behind come to this process when their parents end.
class Orphans {
 public:
  Orphans() : before_(children_of_this_process()) {
    ::prctl(PR_GET_CHILD_SUBREAPER, &was_reaper_);
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  }
  ~Orphans() {
    // Each round ends one generation.
    for (int round = 0; round < 100; ++round) {
      bool any = false;
      for (const pid_t pid : children_of_this_process()) {
        if (std::find(before_.begin(), before_.end(), pid) == before_.end()) {
          any = true;
          ::kill(pid, SIGKILL);
          ::waitpid(pid, nullptr, 0);
        }
      }
      if (!any) {
        break;
      }
    }
    ::prctl(PR_SET_CHILD_SUBREAPER, was_reaper_);
  }
  Orphans(const Orphans&) = delete;
  Orphans& operator=(const Orphans&) = delete;

 private:
  std::vector<pid_t> before_;
  int was_reaper_ = 0;
};

}  // namespace

int launch(const LaunchOptions& options) {
  validate(options);
  const Master master = parse_master(options.master);
  const std::string path = find_program(options.program[0]);
  Signals signals;  // before the store's threads, which inherit what is blocked
  const Orphans orphans;
  // All hosts must derive the same name; one host can take one that is its own.
  const std::string job = options.nnodes > 1 ? "launch-" + options.master : "launch-" + unique_author();
  const std::string prefix = job_prefix(job + "/0");
  Store store = options.node_rank == 0
                    ? Store::serve(listen_on(master.host, master.port), prefix)
                    : Store::connect(
                          fmt::format("host {}", options.node_rank), master.host, master.port, options.timeout, prefix);
  Launch run(options, std::move(store), job, master, signals);
  run.start(path);
  return run.run();
}

}  // namespace shardpipe::comm
