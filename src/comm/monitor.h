#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "comm/action_slot.h"

namespace shardpipe::comm {

class Store;

struct MonitorOptions {
  std::chrono::milliseconds timeout{300'000};  ///< longest action
  /// Longest silence of a rank or of the store; not above `timeout` where that is 5 s or more. A busy or virtual
  /// machine can stand still for ten seconds without being dead.
  std::chrono::milliseconds heartbeat_limit{30'000};
  std::chrono::milliseconds period{250};  ///< between two heartbeats
  /// How long a lost connection waits for the true cause (a rank that failed, a process that the launcher saw die)
  /// before it counts as the cause itself.
  std::chrono::milliseconds cause_wait{1'500};
  /// How long after a failure elsewhere the compute thread may take to come back before the process is ended.
  std::chrono::milliseconds grace{1'500};
};

/// A wait that the monitor must be able to end.
class Interruptible {
 public:
  virtual void interrupt() noexcept = 0;

 protected:
  ~Interruptible() = default;
};

/// Sees to it that all ranks end soon after the first failure of any, and that this failure is printed once.
///
/// Two threads that sleep: one sends heartbeats to the store, reads there whether some rank failed, and watches the
/// heartbeat of the next rank; the other watches the actions of this rank and the first thread. Their clock stands
/// still while this process is stopped, so Ctrl-Z and `fg` of a whole job do no harm.
///
/// When a failure is known, every wait is interrupted and throws on the compute thread. If nothing of this reaches that
/// thread within the grace time, the monitor ends the process (status 4, or that of this rank's own failure).
class Monitor {
 public:
  /// A world of one rank: no threads; reports only to its caller.
  explicit Monitor(int rank);

  /// `store`: a connection for the monitor alone, with the job's prefix. `world`: prefix of this world's own keys.
  Monitor(Store store, const std::string& world, int rank, int world_size, bool rank0_serves, const MonitorOptions&);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  /// Says what the compute thread does now; an action that lasts longer than the timeout fails the job: "rank 1: action
  /// 1RECV_F0 (stage 1, microbatch 0, from rank 0) did not end within 5 s". Waits outside of an action have no limit.
  /// Throws Error(rank) when some rank has failed. Costs some 10 ns; `text` is copied (40 bytes).
  void begin_action(std::string_view text, const ActionPlace& place = {});
  void end_action();
  bool in_action() const;

  /// Says that the compute thread sleeps in `text` until `from` (a rank of the world, or -1) does its part, so that an
  /// action that takes too long can name whom it waits for.
  void begin_wait(std::string_view text, int from);
  void end_wait();

  /// Whether this rank prints the line when the store is lost, of those that lose it together. Before: rank 0, or rank
  /// 1 where rank 0 serves it.
  void set_speaks(bool speaks);

  bool failed() const;
  /// Throws Error(rank) when some rank has failed: for long loops that neither wait nor begin actions.
  void check();

  /// Reports this rank's own failure, unless some failure came first. True when it came first and nothing was printed
  /// yet: the caller prints the line and exits with its status; else it exits with 4 and prints nothing. Where this
  /// process serves the store, returns once the others know (or after 1 s: dead ones never will).
  bool report_failure(const Error& error) noexcept;

  /// What a failed message throws: waits for the true cause, and if there is none reports "rank 0: lost connection to
  /// rank 1". `detail` is for the log.
  [[noreturn]] void lost_connection(int peer, const std::string& detail);
  /// The same of one of several ranks: `whom` says which.
  [[noreturn]] void lost_connection(const std::string& whom, const std::string& detail);
  /// Waits for the cause of what just went wrong with another rank, and throws it; returns when none comes.
  void await_cause();
  /// Throws the known failure: as it was for the rank whose own it is, else as Error(rank).
  [[noreturn]] void throw_failure();

  /// Around each blocking wait. False: a failure is known, do not wait.
  bool enter_wait(Interruptible* wait);
  void leave_wait(Interruptible* wait);
  /// Interrupts all waits and refuses new ones: before what they wait for is taken down.
  void end_waits();

  /// This rank's work is done: its silence is no failure from now on. Returns at once, but where this process serves
  /// the store, when all ranks have done the same. Throws Error(rank) when some rank fails before.
  void finish();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// An action for a scope, unless one is under way already.
class ActionScope {
 public:
  ActionScope(Monitor& monitor, std::string_view text, const ActionPlace& place = {})
      : monitor_(monitor.in_action() ? nullptr : &monitor) {
    if (monitor_ != nullptr) {
      monitor_->begin_action(text, place);
    }
  }
  ~ActionScope() {
    if (monitor_ != nullptr) {
      monitor_->end_action();
    }
  }
  ActionScope(const ActionScope&) = delete;
  ActionScope& operator=(const ActionScope&) = delete;

 private:
  Monitor* monitor_;
};

}  // namespace shardpipe::comm
