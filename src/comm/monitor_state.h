#pragma once

// What Monitor's callers and its two threads share; for monitor*.cpp only.
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "comm/failure.h"
#include "comm/monitor.h"
#include "comm/store.h"

namespace shardpipe::comm {

struct Monitor::State {
  using Milliseconds = std::chrono::milliseconds;

  // Fixed before the threads start. A world of one rank has no store and no threads.
  std::optional<Store> store;
  std::string world;  ///< prefix of this world's keys; the failure key is the job's
  int rank = 0;
  int world_size = 1;
  bool rank0_serves = false;
  MonitorOptions options;
  std::string author = unique_author();

  ActionSlot action;
  ActionSlot wait_slot;  ///< within the action
  std::atomic<bool> failed{false};
  std::atomic<bool> speaks{false};
  std::atomic<int64_t> running_ms{0};      ///< age of the monitor without the time that the process was stopped
  std::atomic<int64_t> last_answer_ms{0};  ///< when the store last answered, on that clock

  std::mutex mutex;  ///< guards what follows; never held during a call to the store
  std::condition_variable changed;
  std::optional<FailureRecord> proposal;  ///< this rank's failure on its way to the store
  std::optional<Error> own_error;
  std::optional<FailureRecord> failure;
  bool own = false;        ///< `failure` is this rank's
  bool printed = false;    ///< its line was printed, or promised to be
  bool delivered = false;  ///< the failure reached the compute thread, or came from it
  int hurry = 0;           ///< callers that wait for news from the store
  bool leaving = false;    ///< finish() was called
  bool left = false;       ///< the store knows
  bool all_left = false;
  bool all_know = false;  ///< every rank has seen the failure
  bool stop = false;
  bool heart_stopped = false;

  std::mutex waits_mutex;
  std::vector<Interruptible*> waits;
  bool waits_ended = false;

  std::thread heart;
  std::thread watchdog;

  /// Makes `record` the known failure unless there is one, and ends all waits.
  void adopt(const FailureRecord& record, bool is_own);
  void end_waits();
  /// Brings this rank's failure to the store and returns when some failure is known.
  void claim(const Error& error);
  /// Where this process serves the store: waits until the other ranks know of the failure.
  void linger();

  void heartbeat_loop();
  void beat();
  void watch_next_rank();
  void store_lost(const std::string& what);
  void watchdog_loop();
  void watch_action();
  void end_stuck_process();

  // Owned by the heartbeat thread.
  int watched = 0;             ///< the next rank that has not left
  int64_t watched_beats = -1;  ///< its heartbeats so far
  int64_t watched_since_ms = 0;
  bool told_seen = false;
  // Owned by the watchdog thread.
  uint32_t action_number = 0;
  int64_t action_since_ms = 0;
};

}  // namespace shardpipe::comm
