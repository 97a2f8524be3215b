// Monitor's two threads.
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "comm/monitor_state.h"

namespace shardpipe::comm {
namespace {

// Added to a rank's heartbeats when it leaves: more than any rank can send.
constexpr int64_t kLeft = int64_t{1} << 40;

constexpr std::chrono::milliseconds kHurry(20);

std::string seconds(int64_t ms) {
  return fmt::format("{:g} s", static_cast<double>(ms) / 1000);
}

}  // namespace

void Monitor::State::heartbeat_loop() {
  std::unique_lock lock(mutex);
  while (!stop) {
    lock.unlock();
    try {
      beat();
    } catch (const std::exception& error) {
      store_lost(error.what());
      lock.lock();
      break;
    }
    last_answer_ms = running_ms.load();
    lock.lock();
    const bool serving_others = store->is_server() && (failure ? !all_know : left && !all_left);
    const bool asked = (proposal && !failure) || (leaving && !left) || (failure && !told_seen);
    const int waiting = hurry;
    if (!stop && !asked) {
      changed.wait_for(lock, waiting > 0 || serving_others ? kHurry : options.period, [&] {
        return stop || (proposal && !failure) || (leaving && !left) || hurry > waiting;
      });
    }
  }
  heart_stopped = true;
  lock.unlock();
  changed.notify_all();
}

/// One round of questions to the store.
void Monitor::State::beat() {
  std::optional<FailureRecord> proposed;
  bool leave = false;
  bool known = false;
  {
    const std::lock_guard lock(mutex);
    proposed = proposal;
    leave = leaving && !left;
    known = failure.has_value();
  }
  if (!left) {
    store->add(fmt::format("{}/beat/{}", world, rank), leave ? kLeft : 1);
  }
  if (leave) {
    store->add(world + "/left", 1);
  }
  if (!known) {
    std::optional<std::string> text;
    if (proposed) {
      text = store->set_first(kFailureKey, proposed->to_text());
    } else {
      text = store->find(kFailureKey);
    }
    if (text) {
      const FailureRecord record = FailureRecord::from_text(*text);
      adopt(record, record.author == author);
      known = true;
    } else {
      watch_next_rank();
    }
  }
  bool everyone_knows = false;
  bool everyone_left = false;
  if (known) {
    everyone_knows = store->add(world + "/know", told_seen ? 0 : 1) >= world_size;
    told_seen = true;
  }
  if (left && store->is_server()) {
    everyone_left = store->add(world + "/left", 0) >= world_size;
  }
  {
    const std::lock_guard lock(mutex);
    left = left || leave;
    all_know = everyone_knows;
    all_left = everyone_left;
  }
  changed.notify_all();
}

/// Ranks watch each other in a ring, so each round asks for one counter however many ranks there are. A rank that left
/// is skipped, and those it watched fall to the one before it.
void Monitor::State::watch_next_rank() {
  const int64_t now = running_ms;
  if (watched == rank) {
    watched = (rank + 1) % world_size;
    watched_since_ms = now;
    watched_beats = -1;
  }
  const int64_t beats = store->add(fmt::format("{}/beat/{}", world, watched), 0);
  if (beats >= kLeft) {
    watched = (watched + 1) % world_size;  // our own number: begin anew in the next round
    watched_beats = -1;
    watched_since_ms = now;
    return;
  }
  if (beats != watched_beats) {
    watched_beats = beats;
    watched_since_ms = now;
  } else if (now - watched_since_ms > options.heartbeat_limit.count()) {
    const Error error(
        ErrorCode::rank,
        fmt::format(
            "rank {} stopped responding: no heartbeat for {} (seen by rank {})", watched,
            seconds(options.heartbeat_limit.count()), rank),
        "its process may be stopped or its host may be gone");
    const FailureRecord record = FailureRecord::from_error(watched, error, author);
    {
      const std::lock_guard lock(mutex);
      if (!own_error) {
        own_error = error;
      }
    }
    const FailureRecord first = FailureRecord::from_text(store->set_first(kFailureKey, record.to_text()));
    adopt(first, first.author == author);
  }
}

/// Nobody can ask the store who was first any more, so a rule decides who prints: of those that reach each other
/// without a link between hosts, and so lost it together, the lowest rank that does not serve it.
void Monitor::State::store_lost(const std::string& what) {
  log_info("store: {}", one_line(what));
  const std::string host = rank0_serves ? "rank 0" : "the launcher";
  const Error error(
      ErrorCode::rank,
      fmt::format(
          "{} died or stopped responding: rank {} lost the store it serves at {}:{}", host, rank, store->host(),
          store->port()),
      "that process ended, or its host cannot be reached");
  FailureRecord record = FailureRecord::from_error(rank0_serves ? 0 : rank, error, author);
  bool prints = speaks;
  {
    const std::lock_guard lock(mutex);
    if (stop || left) {
      return;
    }
    if (proposal) {
      record = *proposal;
      prints = true;
    } else {
      own_error = error;
    }
  }
  adopt(record, prints);
}

void Monitor::State::watchdog_loop() {
  Clock::time_point last = Clock::now();
  const Milliseconds longest_step = 4 * options.period;
  std::unique_lock lock(mutex);
  while (!stop && !failure) {
    changed.wait_for(lock, options.period, [&] { return stop || failure; });
    const Clock::time_point now = Clock::now();
    const auto step = std::chrono::duration_cast<Milliseconds>(now - last);
    if (step < Milliseconds(1)) {
      continue;  // woken for something else; do not lose the fraction
    }
    last = now;
    running_ms += std::min(step, longest_step).count();
    if (stop || failure) {
      break;
    }
    lock.unlock();
    watch_action();
    const int64_t silence = running_ms - last_answer_ms;
    if (silence > options.heartbeat_limit.count() + 2 * options.period.count()) {
      store_lost(fmt::format("no answer for {}", seconds(silence)));
    }
    lock.lock();
  }
  if (stop) {
    return;
  }
  // A failure is known, and all waits of this process have been interrupted.
  changed.wait_for(lock, options.grace, [&] { return stop || delivered; });
  if (!stop && !delivered) {
    lock.unlock();
    end_stuck_process();
  }
}

void Monitor::State::watch_action() {
  const int64_t now = running_ms;
  const uint32_t number = action.number();
  if (number != action_number) {
    action_number = number;
    action_since_ms = now;
    return;
  }
  const auto running = action.snapshot();
  if (!running || running->number != number) {
    return;
  }
  const ActionPlace& place = running->place;
  // Who waits for another rank lets that one speak first: its own action is the cause.
  const auto waiting = wait_slot.snapshot();
  const int64_t patience = place.from >= 0 || place.to >= 0 || waiting ? 3 * options.period.count() : 0;
  if (now - action_since_ms < options.timeout.count() + patience) {
    return;
  }
  std::string where;
  const auto add = [&](const char* name, int number_there) {
    if (number_there >= 0) {
      where += fmt::format("{}{} {}", where.empty() ? "" : ", ", name, number_there);
    }
  };
  add("stage", place.stage);
  add("microbatch", place.microbatch);
  add("from rank", place.from);
  add("to rank", place.to);
  if (waiting && waiting->place.from >= 0 && waiting->place.from != place.from) {
    where += fmt::format(
        "{}waiting for rank {}{}", where.empty() ? "" : ", ", waiting->place.from,
        waiting->text == running->text ? std::string() : " in " + waiting->text);
  }
  claim(Error(
      ErrorCode::rank,
      fmt::format(
          "rank {}: action {}{} did not end within {}", rank, running->text,
          where.empty() ? std::string() : " (" + where + ")", seconds(options.timeout.count())),
      "raise --timeout if it only needs longer"));
}

/// The compute thread is stuck where no interruption reaches it (a long computation, a lock).
void Monitor::State::end_stuck_process() {
  FailureRecord record;
  bool print = false;
  {
    const std::lock_guard lock(mutex);
    record = *failure;
    print = own && !std::exchange(printed, true);
  }
  if (print) {
    print_error_line(record.line);
  }
  linger();
  ::_exit(print ? record.status : 4);
}

}  // namespace shardpipe::comm
