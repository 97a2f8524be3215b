#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/gloo_message.h"

namespace shardpipe::comm {

/// The communication thread of a rank: lets go of sends that nobody waits for, once they have left. It sleeps until
/// enough has gathered, so that small messages do not cost a thread switch each; what it then holds back is little.
class Reaper {
 public:
  Reaper();
  /// The monitor must have ended all waits before.
  ~Reaper();
  Reaper(const Reaper&) = delete;
  Reaper& operator=(const Reaper&) = delete;

  /// Keeps a send until it has left.
  void keep(GlooMessage* message);
  /// Someone polls this message: some thread must wait for it now. Starts threads as needed and keeps them.
  void watch(GlooMessage* message);
  /// Returns when all kept sends have left. Throws Error(rank).
  void flush();

 private:
  static constexpr int kWakeMessages = 16;
  static constexpr int64_t kWakeBytes = 256 * 1024;

  void reap_loop();
  void watch_loop();
  /// The oldest kept message with its reference, or nullptr. With the lock held.
  GlooMessage* take_kept();

  std::mutex mutex_;
  std::condition_variable kept_;
  std::condition_variable watched_;
  GlooMessage* first_ = nullptr;  ///< sends in the order of keep(), linked by `next`
  GlooMessage* last_ = nullptr;
  int num_kept_ = 0;
  int64_t kept_bytes_ = 0;
  std::deque<GlooMessage*> to_watch_;
  int idle_watchers_ = 0;
  bool stop_ = false;
  bool reaping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace shardpipe::comm
