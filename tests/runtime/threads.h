#pragma once

// Ranks as threads of the test: messages through a mailbox in memory.
#include <ATen/Functions.h>

#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "comm/monitor.h"
#include "comm/transport.h"
#include "runtime/engine.h"

namespace shardpipe::test {

/// What was sent, by sender, receiver and tag, in order.
class Mailbox {
 public:
  using Key = std::tuple<int, int, int>;

  void put(const Key& key, const at::Tensor& tensor) {
    const std::lock_guard lock(mutex_);
    sent_[key].push_back(tensor.clone());
    changed_.notify_all();
  }
  size_t next_ticket(const Key& key) {
    const std::lock_guard lock(mutex_);
    return tickets_[key]++;
  }
  void take(const Key& key, size_t ticket, const at::Tensor& out) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || sent_[key].size() > ticket; });
    if (stopped_) {
      throw_rank("another rank failed");
    }
    at::Tensor& message = sent_[key][ticket];
    if (message.nbytes() != out.nbytes() || message.scalar_type() != out.scalar_type()) {
      throw_internal("{} bytes were sent, {} are received", message.nbytes(), out.nbytes());
    }
    at::Tensor(out).copy_(message.view(out.sizes()));
    message.reset();
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, std::vector<at::Tensor>> sent_;
  std::map<Key, size_t> tickets_;
  bool stopped_ = false;
};

class MailboxMessage : public comm::Message {
 public:
  MailboxMessage(Mailbox& mailbox, Mailbox::Key key, at::Tensor out)
      : mailbox_(mailbox), key_(std::move(key)), ticket_(mailbox.next_ticket(key_)), out_(std::move(out)) {}
  void wait() override { mailbox_.take(key_, ticket_, out_); }
  bool done() override { return false; }

 protected:
  void recycle() override { delete this; }

 private:
  Mailbox& mailbox_;
  Mailbox::Key key_;
  size_t ticket_;
  at::Tensor out_;
};

class ThreadBackend : public comm::TransportBackend {
 public:
  ThreadBackend(Mailbox& mailbox, int rank) : mailbox_(mailbox), rank_(rank) {}
  comm::MessageHandle isend(const at::Tensor& tensor, int dst, int tag) override {
    mailbox_.put({rank_, dst, tag}, tensor);
    return {};
  }
  comm::MessageHandle irecv(const at::Tensor& out, int src, int tag) override {
    return comm::MessageHandle(new MailboxMessage(mailbox_, {src, rank_, tag}, out));
  }

 private:
  Mailbox& mailbox_;
  int rank_;
};

/// Runs `body(rank, transport)` on a thread a rank; throws what the first rank to fail threw.
inline void run_threads(int size, const std::function<void(int, const comm::Transport&)>& body) {
  Mailbox mailbox;
  std::vector<int> ranks(static_cast<size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  std::mutex mutex;
  std::exception_ptr first;
  const auto run = [&](int rank) {
    try {
      body(rank, comm::Transport(std::make_shared<ThreadBackend>(mailbox, rank), ranks, rank));
    } catch (...) {
      const std::lock_guard lock(mutex);
      first = first ? first : std::current_exception();
      mailbox.stop();
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 1; rank < size; ++rank) {
    threads.emplace_back(run, rank);
  }
  run(0);
  for (std::thread& thread : threads) {
    thread.join();
  }
  if (first) {
    std::rethrow_exception(first);
  }
}

/// Runs `body(engine)` on one engine a stage.
inline void run_stages(const plan::Plan& plan, const std::function<void(runtime::Engine&)>& body) {
  run_threads(plan.layout.pp, [&](int rank, const comm::Transport& transport) {
    comm::Monitor monitor(rank);
    runtime::Engine engine(plan, {rank, transport, &monitor});
    body(engine);
  });
}

}  // namespace shardpipe::test
