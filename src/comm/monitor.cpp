#include "comm/monitor.h"

#include <algorithm>

#include "base/log.h"
#include "comm/monitor_state.h"

namespace shardpipe::comm {

Monitor::Monitor(int rank) : state_(std::make_shared<State>()) {
  state_->rank = rank;
}

Monitor::Monitor(
    Store store, const std::string& world, int rank, int world_size, bool rank0_serves, const MonitorOptions& options)
    : state_(std::make_shared<State>()) {
  State& state = *state_;
  state.store.emplace(std::move(store));
  state.world = world;
  state.rank = rank;
  state.world_size = world_size;
  state.rank0_serves = rank0_serves;
  state.options = options;
  state.options.heartbeat_limit =
      std::min(options.heartbeat_limit, std::max(options.timeout, std::chrono::milliseconds(5000)));
  state.watched = rank;
  state.speaks = rank == (rank0_serves ? 1 : 0);
  // The threads share the state's ownership: one that the store never answers is left behind.
  state.heart = std::thread([shared = state_] { shared->heartbeat_loop(); });
  state.watchdog = std::thread([shared = state_] { shared->watchdog_loop(); });
}

Monitor::~Monitor() {
  State& state = *state_;
  {
    const std::lock_guard lock(state.mutex);
    state.stop = true;
  }
  state.changed.notify_all();
  if (state.watchdog.joinable()) {
    state.watchdog.join();
  }
  if (state.heart.joinable()) {
    std::unique_lock lock(state.mutex);
    const bool ended = state.changed.wait_for(lock, std::chrono::seconds(1), [&] { return state.heart_stopped; });
    lock.unlock();
    ended ? state.heart.join() : state.heart.detach();
  }
}

void Monitor::begin_action(std::string_view text, const ActionPlace& place) {
  check();
  state_->action.begin(text, place);
}

void Monitor::end_action() {
  state_->action.end();
}

bool Monitor::in_action() const {
  return state_->action.active();
}

void Monitor::begin_wait(std::string_view text, int from) {
  state_->wait_slot.begin(text, {.from = from});
}

void Monitor::end_wait() {
  state_->wait_slot.end();
}

void Monitor::set_speaks(bool speaks) {
  state_->speaks = speaks;
}

bool Monitor::failed() const {
  return state_->failed.load(std::memory_order_acquire);
}

void Monitor::check() {
  if (failed()) {
    throw_failure();
  }
}

bool Monitor::report_failure(const Error& error) noexcept {
  State& state = *state_;
  try {
    {
      const std::lock_guard lock(state.mutex);
      state.delivered = true;
      // The watchdog may wait for this.
      state.changed.notify_all();
    }
    state.claim(error);
    state.linger();
  } catch (const std::exception& failure) {
    log_info("reporting a failure: {}", failure.what());
  }
  const std::lock_guard lock(state.mutex);
  return state.own && !std::exchange(state.printed, true);
}

void Monitor::lost_connection(int peer, const std::string& detail) {
  lost_connection(fmt::format("rank {}", peer), detail);
}

void Monitor::lost_connection(const std::string& whom, const std::string& detail) {
  State& state = *state_;
  log_info("message with {}: {}", whom, one_line(detail));
  const auto action = state.action.snapshot();
  await_cause();
  Error error(
      ErrorCode::rank,
      fmt::format(
          "rank {}: lost connection to {}{}", state.rank, whom,
          action ? fmt::format(" in action {}", action->text) : std::string()),
      "that process ended or its host cannot be reached");
  state.claim(error);
  throw_failure();
}

void Monitor::await_cause() {
  State& state = *state_;
  {
    std::unique_lock lock(state.mutex);
    ++state.hurry;
    state.changed.notify_all();
    state.changed.wait_for(lock, state.options.cause_wait, [&] { return state.failure.has_value(); });
    --state.hurry;
  }
  check();
}

void Monitor::throw_failure() {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  state.delivered = true;
  state.changed.notify_all();
  if (state.own && state.own_error) {
    throw Error(*state.own_error);
  }
  if (!state.failure) {
    throw_internal("a failure was to be thrown, but there is none");
  }
  throw_rank("rank {}: ended by the failure of rank {}: {}", state.rank, state.failure->rank, state.failure->line);
}

bool Monitor::enter_wait(Interruptible* wait) {
  const std::lock_guard lock(state_->waits_mutex);
  if (state_->waits_ended) {
    return false;
  }
  state_->waits.push_back(wait);
  return true;
}

void Monitor::leave_wait(Interruptible* wait) {
  const std::lock_guard lock(state_->waits_mutex);
  auto& waits = state_->waits;
  waits.erase(std::find(waits.begin(), waits.end(), wait));
}

void Monitor::end_waits() {
  state_->end_waits();
}

void Monitor::finish() {
  State& state = *state_;
  if (!state.store) {
    return;
  }
  const bool server = state.store->is_server();
  {
    std::unique_lock lock(state.mutex);
    state.leaving = true;
    state.changed.notify_all();
    state.changed.wait(lock, [&] { return state.failure || (server ? state.all_left : state.left); });
  }
  check();
}

void Monitor::State::adopt(const FailureRecord& record, bool is_own) {
  {
    const std::lock_guard lock(mutex);
    if (failure) {
      return;
    }
    failure = record;
    own = is_own;
    failed.store(true, std::memory_order_release);
  }
  changed.notify_all();
  end_waits();
}

void Monitor::State::end_waits() {
  const std::lock_guard lock(waits_mutex);
  waits_ended = true;
  for (Interruptible* wait : waits) {
    wait->interrupt();
  }
}

void Monitor::State::claim(const Error& error) {
  const FailureRecord record = FailureRecord::from_error(rank, error, author);
  if (store) {
    std::unique_lock lock(mutex);
    if (failure) {
      return;
    }
    if (!proposal) {
      proposal = record;
      own_error = error;
    }
    changed.notify_all();
    // The store may not answer: then this rank can only speak for itself.
    changed.wait_for(lock, std::chrono::seconds(3), [&] { return failure.has_value(); });
  } else {
    const std::lock_guard lock(mutex);
    own_error = error;
  }
  adopt(record, true);
}

void Monitor::State::linger() {
  std::unique_lock lock(mutex);
  if (store && store->is_server()) {
    ++hurry;
    changed.notify_all();
    changed.wait_for(lock, std::chrono::milliseconds(1000), [&] { return all_know || heart_stopped; });
    --hurry;
  }
}

}  // namespace shardpipe::comm
