// Tags over a channel that has none and keeps strictly to the order of each direction, as NCCL does.
#include "comm/ordered_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "comm/group_body.h"
#include "comm/message_group.h"
#include "comm/strict_channel.h"
#include "comm/threads.h"

namespace shardpipe::comm::test {
namespace {

using testing::HasSubstr;

at::Tensor bytes_of(int64_t count, int64_t seed) {
  return at::arange(count, at::kLong).add(seed).mul(31).bitwise_and(255).to(at::kByte);
}

/// The i-th message of one rank to another: the same for both.
struct Planned {
  int tag = 0;
  int64_t bytes = 0;
  int64_t seed = 0;
};
std::vector<Planned> plan(int src, int dst, int round, int count) {
  std::mt19937 random(static_cast<unsigned>(src * 100 + dst * 10'000 + round * 1'000'000));
  constexpr int64_t kSizes[] = {0, 1, 16, 500, 70'000};
  std::vector<Planned> messages;
  for (int i = 0; i < count; ++i) {
    messages.push_back({static_cast<int>(random() % 4), kSizes[random() % 5], static_cast<int64_t>(random() % 1000)});
  }
  return messages;
}

/// Everyone sends to everyone, and asks and waits in random orders, before and after the messages have come.
void random_orders(const Transport& all, int rounds) {
  const int size = all.size();
  const int rank = all.rank();
  constexpr int kCount = 12;
  std::mt19937 random(static_cast<unsigned>(rank));
  for (int round = 0; round < rounds; ++round) {
    struct Expected {
      Planned message;
      at::Tensor out;
      MessageHandle handle;
    };
    std::vector<Expected> receives;
    std::vector<MessageHandle> sends;
    // Equal tags of one peer stay in order; the rest is shuffled.
    std::vector<std::function<void()>> steps;
    std::map<std::pair<int, int>, std::deque<Planned>> queues;
    for (int peer = 0; peer < size; ++peer) {
      if (peer == rank) {
        continue;
      }
      const auto to_send = std::make_shared<std::deque<Planned>>();
      for (const Planned& message : plan(rank, peer, round, kCount)) {
        to_send->push_back(message);
        steps.emplace_back([&, peer, to_send] {
          const Planned next = to_send->front();
          to_send->pop_front();
          sends.push_back(all.isend(bytes_of(next.bytes, next.seed), peer, next.tag));
        });
      }
      for (const Planned& message : plan(peer, rank, round, kCount)) {
        queues[{peer, message.tag}].push_back(message);
        steps.emplace_back([&, peer, tag = message.tag] {
          auto& queue = queues[{peer, tag}];
          Expected expected{queue.front(), at::zeros({queue.front().bytes}, at::kByte), {}};
          queue.pop_front();
          expected.handle = all.irecv(expected.out, peer, tag);
          receives.push_back(std::move(expected));
          if (random() % 4 == 0) {
            static_cast<void>(receives[random() % receives.size()].handle.done());
          }
        });
      }
    }
    std::shuffle(steps.begin(), steps.end(), random);
    for (const auto& step : steps) {
      step();
    }
    std::shuffle(receives.begin(), receives.end(), random);
    for (Expected& receive : receives) {
      if (random() % 3 == 0) {
        while (!receive.handle.done()) {
          std::this_thread::yield();
        }
      }
      receive.handle.wait();
      expect_same(
          fmt::format("a message with tag {}", receive.message.tag), receive.out,
          bytes_of(receive.message.bytes, receive.message.seed));
    }
    for (MessageHandle& send : sends) {
      EXPECT_TRUE(send.done());
      if (random() % 2 == 0) {
        send.wait();
      }
    }
  }
}

/// Runs `body` over strict devices, with headers over shared memory or Gloo.
std::vector<std::string> run_ordered(
    int ranks,
    TransportChoice host,
    const std::function<void(const Transport& all, const ThreadRank& rank)>& body,
    const MonitorOptions& options = {}) {
  StrictDevices devices;
  return run_connected(ranks, host, options, [&](const ThreadRank& rank) {
    const auto channel = std::make_shared<StrictChannel>(devices, rank.transport.rank());
    const auto messages = std::make_shared<OrderedMessages>(channel, rank.transport);
    body(Transport(messages, rank.transport.ranks(), rank.transport.rank()), rank);
  });
}

constexpr TransportChoice kHosts[] = {TransportChoice::shm, TransportChoice::gloo};

TEST(OrderedMessages, RandomOrders) {
  for (const TransportChoice host : kHosts) {
    for (const int ranks : {2, 4}) {
      EXPECT_EQ(
          run_ordered(
              ranks, host,
              [](const Transport& all, const ThreadRank& rank) {
                random_orders(all, 15);
                rank.group.barrier();
              }),
          no_errors(ranks));
    }
  }
}

TEST(OrderedMessages, CollectivesConsistOfThem) {
  EXPECT_EQ(
      run_ordered(
          3, TransportChoice::shm,
          [](const Transport& all, const ThreadRank& rank) {
            const Group group(std::make_shared<MessageGroup>(all, "ordered"), all.ranks(), all.rank(), rank.monitor);
            check_mixture(group, 40, 3);
            check_strides(group);
          }),
      no_errors(3));
}

/// What the channel alone cannot do: the order of the waits must not be another than that of the sends.
TEST(OrderedMessages, ReceiverWaitsInAnotherOrder) {
  const at::Tensor small = bytes_of(4, 1);
  const at::Tensor large = bytes_of(8, 2);
  StrictDevices naive(false, std::chrono::milliseconds(300));
  std::vector<std::string> errors = run_threads(2, false, [&](const ThreadRank& rank) {
    StrictChannel channel(naive, rank.transport.rank());
    if (rank.transport.rank() == 0) {
      channel.send(small, 1)->begin();
      channel.send(large, 1)->begin();
    } else {
      const auto receive = channel.recv(at::empty({8}, at::kByte), 0);
      receive->begin();
      receive->join();
    }
  });
  EXPECT_EQ(errors, (std::vector<std::string>{"", "the device stands still"}));

  EXPECT_EQ(
      run_ordered(
          2, TransportChoice::shm,
          [&](const Transport& all, const ThreadRank&) {
            if (all.rank() == 0) {
              all.isend(small, 1, 1);
              all.isend(large, 1, 2);
              return;
            }
            const at::Tensor second = at::empty({8}, at::kByte);
            const at::Tensor first = at::empty({2}, at::kShort);
            MessageHandle asked = all.irecv(second, 0, 2);
            asked.wait();  // the other one has come by then, unexpected
            expect_same("the second message", second, large);
            MessageHandle late = all.irecv(first, 0, 1);
            EXPECT_TRUE(late.done());
            late.wait();
            expect_same("the first message", first.view(at::kByte), small);
          }),
      no_errors(2));
}

/// Why each direction has a stream: both begin with a send.
TEST(OrderedMessages, BothDirectionsAtOnce) {
  const auto body = [](StrictDevices& devices) {
    return run_threads(2, false, [&](const ThreadRank& rank) {
      const int peer = 1 - rank.transport.rank();
      StrictChannel channel(devices, rank.transport.rank());
      channel.send(bytes_of(4, 1), peer)->begin();
      const auto receive = channel.recv(at::empty({4}, at::kByte), peer);
      receive->begin();
      receive->join();
    });
  };
  StrictDevices one(true, std::chrono::milliseconds(300));
  EXPECT_EQ(body(one)[0], "the device stands still");
  StrictDevices two;
  EXPECT_EQ(body(two), no_errors(2));
}

TEST(OrderedMessages, PollingDoesNotBlock) {
  for (const TransportChoice host : kHosts) {
    std::atomic<bool> polled{false};
    EXPECT_EQ(
        run_ordered(
            2, host,
            [&](const Transport& all, const ThreadRank&) {
              if (all.rank() == 0) {
                while (!polled) {
                  std::this_thread::yield();
                }
                all.isend(bytes_of(10, 3), 1, 5);
                return;
              }
              const at::Tensor out = at::empty({10}, at::kByte);
              MessageHandle receive = all.irecv(out, 0, 5);
              EXPECT_FALSE(receive.done());
              polled = true;
              while (!receive.done()) {
                std::this_thread::yield();
              }
              receive.wait();
              expect_same("the message", out, bytes_of(10, 3));
            }),
        no_errors(2));
  }
}

TEST(OrderedMessages, AnotherSize) {
  const auto body = [](bool early) {
    return run_ordered(2, TransportChoice::shm, [early](const Transport& all, const ThreadRank&) {
      if (all.rank() == 0) {
        all.isend(at::zeros({4}), 1, 7);
        all.isend(at::zeros({1}), 1, 8);
        return;
      }
      if (early) {  // before it is asked for
        all.irecv(at::zeros({1}), 0, 8).wait();
      }
      all.irecv(at::zeros({5}), 0, 7).wait();
    });
  };
  for (const bool early : {false, true}) {
    EXPECT_THAT(body(early)[1], HasSubstr("message from rank 0 to rank 1 (tag 7) has 16 bytes, its receive 20"));
  }
}

/// A failed peer ends the wait for its header.
TEST(OrderedMessages, FailedPeer) {
  for (const TransportChoice host : kHosts) {
    const std::vector<std::string> errors = run_ordered(2, host, [](const Transport& all, const ThreadRank&) {
      if (all.rank() == 1) {
        throw Error(ErrorCode::input, "nothing to send");
      }
      all.irecv(at::zeros({4}), 1, 1).wait();
    });
    EXPECT_EQ(errors[1], "error[input]: nothing to send");
    EXPECT_THAT(errors[0], HasSubstr("ended by the failure of rank 1: error[input]: nothing to send"));
  }
}

/// One that is gone without a word, as a killed process is.
TEST(OrderedMessages, LostPeer) {
  const std::vector<std::string> errors =
      run_ordered(2, TransportChoice::gloo, [](const Transport& all, const ThreadRank& rank) {
        rank.group.barrier();  // both have connected
        if (all.rank() == 1) {
          throw Dropped();
        }
        all.irecv(at::zeros({4}), 1, 1).wait();
      });
  EXPECT_EQ(errors[1], "dropped");
  EXPECT_THAT(errors[0], HasSubstr("lost connection to rank 1"));
}

}  // namespace
}  // namespace shardpipe::comm::test
