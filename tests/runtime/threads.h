#pragma once

// Ranks as threads of the test: messages through a mailbox in memory.
#include <ATen/Functions.h>

#include <algorithm>
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
#include "comm/message_group.h"
#include "comm/monitor.h"
#include "comm/transport.h"
#include "runtime/axis_group.h"
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

/// `ranks`: numbers in the world of the group's members.
class ThreadBackend : public comm::TransportBackend {
 public:
  ThreadBackend(Mailbox& mailbox, int rank, std::vector<int> ranks)
      : mailbox_(mailbox), rank_(rank), ranks_(std::move(ranks)) {}
  comm::MessageHandle isend(const at::Tensor& tensor, int dst, int tag) override {
    mailbox_.put({rank_, ranks_[static_cast<size_t>(dst)], tag}, tensor);
    return {};
  }
  comm::MessageHandle irecv(const at::Tensor& out, int src, int tag) override {
    return comm::MessageHandle(new MailboxMessage(mailbox_, {ranks_[static_cast<size_t>(src)], rank_, tag}, out));
  }

 private:
  Mailbox& mailbox_;
  int rank_;
  std::vector<int> ranks_;
};

/// A rank's messages, among all ranks or some.
class ThreadNetwork {
 public:
  ThreadNetwork(Mailbox& mailbox, int rank) : mailbox_(mailbox), rank_(rank) {}
  int rank() const { return rank_; }
  /// Each group has a number of its own, 0 to 100.
  comm::Transport transport(const std::vector<int>& ranks, int number) const {
    const auto index = static_cast<int>(std::find(ranks.begin(), ranks.end(), rank_) - ranks.begin());
    return {
        std::make_shared<ThreadBackend>(mailbox_, rank_, ranks), ranks, index, number * (comm::Transport::kMaxTag + 1)};
  }

 private:
  Mailbox& mailbox_;
  int rank_;
};

/// Runs `body(network)` on a thread a rank; throws what the first rank to fail threw.
inline void run_network(int size, const std::function<void(const ThreadNetwork&)>& body) {
  Mailbox mailbox;
  std::mutex mutex;
  std::exception_ptr first;
  const auto run = [&](int rank) {
    try {
      body(ThreadNetwork(mailbox, rank));
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

inline std::vector<int> all_ranks(int size) {
  std::vector<int> ranks(static_cast<size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

/// Runs `body(rank, transport)` on a thread a rank.
inline void run_threads(int size, const std::function<void(int, const comm::Transport&)>& body) {
  run_network(size, [&](const ThreadNetwork& network) { body(network.rank(), network.transport(all_ranks(size), 0)); });
}

/// Runs `body(engine)` on one engine a rank of the plan's mesh.
inline void run_stages(
    const plan::Plan& plan, const std::function<void(runtime::Engine&)>& body, runtime::TensorSource tensors = {}) {
  const mesh::Mesh mesh = plan.mesh();
  run_network(mesh.world_size(), [&](const ThreadNetwork& network) {
    comm::Monitor monitor(network.rank());
    const auto along = [&](mesh::Axis axis) {
      return network.transport(mesh.group(network.rank(), axis), 1 + static_cast<int>(axis));
    };
    const comm::Transport tp = along(mesh::Axis::tp);
    runtime::Engine engine(
        plan,
        {network.rank(), along(mesh::Axis::pp), &monitor, network.transport(all_ranks(mesh.world_size()), 0),
         tp.size() > 1
             ? std::make_shared<runtime::RankGroup>(
                   comm::Group(std::make_shared<comm::MessageGroup>(tp, "threads"), tp.ranks(), tp.rank(), nullptr),
                   monitor)
             : nullptr},
        tensors);
    body(engine);
  });
}

}  // namespace shardpipe::test
