#include "comm/reaper.h"

#include <utility>

namespace shardpipe::comm {

Reaper::Reaper() {
  threads_.emplace_back([this] { reap_loop(); });
}

Reaper::~Reaper() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    threads.swap(threads_);
  }
  kept_.notify_all();
  watched_.notify_all();
  for (std::thread& thread : threads) {
    thread.join();
  }
  while (first_ != nullptr) {
    std::exchange(first_, first_->next)->release();
  }
  for (GlooMessage* message : to_watch_) {
    message->release();
  }
}

void Reaper::keep(GlooMessage* message) {
  message->retain();
  message->next = nullptr;
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    (first_ == nullptr ? first_ : last_->next) = message;
    last_ = message;
    ++num_kept_;
    kept_bytes_ += message->bytes;
    wake = num_kept_ >= kWakeMessages || kept_bytes_ >= kWakeBytes;
  }
  if (wake) {
    kept_.notify_one();
  }
}

void Reaper::watch(GlooMessage* message) {
  message->retain();
  const std::lock_guard lock(mutex_);
  to_watch_.push_back(message);
  if (idle_watchers_ < static_cast<int>(to_watch_.size())) {
    threads_.emplace_back([this] { watch_loop(); });
  }
  watched_.notify_one();
}

void Reaper::flush() {
  std::unique_lock lock(mutex_);
  while (GlooMessage* message = take_kept()) {
    lock.unlock();
    const MessageHandle handle(message);
    message->release();
    message->wait();
    lock.lock();
  }
  kept_.wait(lock, [&] { return !reaping_; });
}

GlooMessage* Reaper::take_kept() {
  if (first_ == nullptr) {
    return nullptr;
  }
  GlooMessage* message = std::exchange(first_, first_->next);
  --num_kept_;
  kept_bytes_ -= message->bytes;
  return message;
}

void Reaper::reap_loop() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    kept_.wait(lock, [&] { return stop_ || num_kept_ >= kWakeMessages || kept_bytes_ >= kWakeBytes; });
    reaping_ = true;
    while (GlooMessage* message = stop_ ? nullptr : take_kept()) {
      lock.unlock();
      message->reap();
      message->release();
      lock.lock();
    }
    reaping_ = false;
    kept_.notify_all();
  }
}

void Reaper::watch_loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_watchers_;
    watched_.wait(lock, [&] { return stop_ || !to_watch_.empty(); });
    --idle_watchers_;
    if (stop_) {
      return;
    }
    GlooMessage* message = to_watch_.front();
    to_watch_.pop_front();
    lock.unlock();
    message->reap();
    message->release();
    lock.lock();
  }
}

}  // namespace shardpipe::comm
