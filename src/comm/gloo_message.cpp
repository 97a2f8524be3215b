#include "comm/gloo_message.h"

#include "comm/reaper.h"

namespace shardpipe::comm {

void GlooMessage::begin(
    std::shared_ptr<MessagePool> pool,
    c10::intrusive_ptr<c10d::Work> work,
    Reaper* reaper,
    Monitor* monitor,
    int peer,
    const char* what) {
  pool_ = std::move(pool);
  work_ = std::move(work);
  reaper_ = reaper;
  monitor_ = monitor;
  peer_ = peer;
  what_ = what;
  problem_.clear();
  watched_.store(false, std::memory_order_relaxed);
  state_.store(kPosted, std::memory_order_release);
}

bool GlooMessage::claim() {
  int expected = kPosted;
  return state_.compare_exchange_strong(expected, kClaimed, std::memory_order_acq_rel);
}

void GlooMessage::complete() {
  // Gloo's own limit would close the connection; the watchdog knows better what takes too long.
  constexpr std::chrono::milliseconds kNoLimit = std::chrono::hours(24 * 365);
  bool arrived = false;
  if (monitor_->enter_wait(this)) {
    try {
      arrived = work_->wait(kNoLimit);
    } catch (const std::exception& error) {
      problem_ = error.what();
    }
    monitor_->leave_wait(this);
  }
  work_.reset();
  state_.store(arrived ? kDone : kFailed, std::memory_order_release);
  state_.notify_all();
}

void GlooMessage::wait() {
  if (state_.load(std::memory_order_acquire) <= kClaimed) {
    // So that the watchdog can name whom a collective waits for, and lets that one speak first.
    monitor_->begin_wait(what_, peer_);
    if (claim()) {
      complete();
    }
    state_.wait(kClaimed, std::memory_order_acquire);
    monitor_->end_wait();
  }
  if (state_.load(std::memory_order_acquire) == kFailed) {
    monitor_->check();
    monitor_->lost_connection(peer_, problem_);
  }
}

bool GlooMessage::done() {
  const int state = state_.load(std::memory_order_acquire);
  if (state == kDone || state == kFailed) {
    return true;
  }
  if (state == kPosted && !watched_.exchange(true, std::memory_order_relaxed)) {
    reaper_->watch(this);
  }
  return false;
}

void GlooMessage::reap() {
  if (claim()) {
    complete();
  }
}

void GlooMessage::interrupt() noexcept {
  work_->abort();
}

void GlooMessage::recycle() {
  work_.reset();
  // The pool may go with the last message.
  const std::shared_ptr<MessagePool> pool = std::move(pool_);
  pool->put(this);
}

MessagePool::~MessagePool() {
  for (GlooMessage* message : free_) {
    delete message;
  }
}

GlooMessage* MessagePool::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      GlooMessage* message = free_.back();
      free_.pop_back();
      return message;
    }
  }
  return new GlooMessage;
}

void MessagePool::put(GlooMessage* message) {
  const std::lock_guard lock(mutex_);
  free_.push_back(message);
}

}  // namespace shardpipe::comm
