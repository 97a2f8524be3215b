#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

#include "comm/monitor.h"
#include "comm/transport.h"

namespace shardpipe::comm {

class MessagePool;
class Reaper;

/// One c10d Work. Gloo cannot be asked whether it is done, only waited for, and only by one thread: whoever claims the
/// message waits, everyone else waits for that one.
class GlooMessage final : public Message, private Interruptible {
 public:
  void begin(
      std::shared_ptr<MessagePool> pool,
      c10::intrusive_ptr<c10d::Work> work,
      Reaper* reaper,
      Monitor* monitor,
      int peer,
      const char* what);

  void wait() override;
  bool done() override;

  /// Waits on a communication thread, unless someone else does. Throws nothing.
  void reap();

  GlooMessage* next = nullptr;  ///< in the reaper's queue
  int64_t bytes = 0;

 protected:
  void recycle() override;

 private:
  enum State : int { kPosted, kClaimed, kDone, kFailed };
  void interrupt() noexcept override;
  bool claim();
  void complete();

  std::shared_ptr<MessagePool> pool_;
  c10::intrusive_ptr<c10d::Work> work_;  ///< holds the tensor until the message has left or arrived
  Reaper* reaper_ = nullptr;
  Monitor* monitor_ = nullptr;
  int peer_ = 0;           ///< number in the world
  const char* what_ = "";  ///< "send", "receive"
  std::atomic<int> state_{kPosted};
  std::atomic<bool> watched_{false};
  std::string problem_;
};

/// Messages are used again, not allocated.
class MessagePool {
 public:
  ~MessagePool();
  GlooMessage* take();
  void put(GlooMessage* message);

 private:
  std::mutex mutex_;
  std::vector<GlooMessage*> free_;
};

}  // namespace shardpipe::comm
