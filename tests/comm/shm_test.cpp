// Shared memory between ranks that are threads; between processes: messages_test.cpp, failure_test.cpp.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "comm/group_body.h"
#include "comm/threads.h"

namespace shardpipe::comm::test {
namespace {

using testing::HasSubstr;

at::Tensor bytes_of(int64_t count, int seed) {
  return at::arange(count, at::kLong).add(seed).mul(31).bitwise_and(255).to(at::kByte);
}

TEST(Shm, CollectivesOfThreads) {
  for (const int ranks : {2, 3, 5}) {
    EXPECT_EQ(run_threads(ranks, false, [](const ThreadRank& rank) { check_group(rank.group); }), no_errors(ranks));
  }
  EXPECT_EQ(run_threads(2, true, [](const ThreadRank& rank) { check_mixture(rank.group, 300, 3); }), no_errors(2));
  EXPECT_EQ(run_threads(4, false, [](const ThreadRank& rank) { check_mixture(rank.group, 100, 5); }), no_errors(4));
}

/// Slots are used again while others still work on earlier pieces: any rank may be late at any moment.
TEST(Shm, CollectivesWithLateRanks) {
  const auto late = [](const ThreadRank& rank) {
    std::mt19937 random(rank.group.rank());
    for (int round = 0; round < 60; ++round) {
      if (random() % 3 == 0) {
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
      }
      check_mixture(rank.group, 1, round);
    }
  };
  EXPECT_EQ(run_threads(3, false, late), no_errors(3));
  EXPECT_EQ(run_threads(2, true, late), no_errors(2));
}

/// Small, eager and large messages in both directions at once, in an order of the receiver's own, some from before they
/// were asked for; more than the ring holds.
TEST(Shm, MessagesOfThreads) {
  const std::vector<int64_t> sizes = {0, 1, 100, 5'000, 70'000, 262'144, 262'145, 300'000, 3'000'000};
  const auto body = [&](const ThreadRank& rank) {
    const Transport& all = rank.transport;
    const int count = static_cast<int>(sizes.size());
    for (int round = 0; round < 12; ++round) {
      std::vector<MessageHandle> receives;
      std::vector<at::Tensor> got;
      std::vector<MessageHandle> sends;
      const auto post = [&](bool send) {
        for (int peer = 0; peer < all.size(); ++peer) {
          for (int i = 0; i < count; ++i) {
            const int which = send ? i : (i * 5 + round) % count;
            if (send) {
              sends.push_back(all.isend(bytes_of(sizes[which], all.rank() + which), peer, which));
            } else {
              got.push_back(at::empty({sizes[which]}, at::kByte));
              receives.push_back(all.irecv(got.back(), peer, which));
            }
          }
        }
      };
      post(round % 2 == 0);
      post(round % 2 != 0);
      for (size_t k = 0; k < receives.size(); ++k) {
        receives[k].wait();
        const int peer = static_cast<int>(k) / count;
        const int which = (static_cast<int>(k) % count * 5 + round) % count;
        expect_same(fmt::format("message {}", which), got[k], bytes_of(sizes[which], peer + which));
      }
      if (round % 3 == 0) {
        sends.clear();  // nobody waits for them
      }
      for (MessageHandle& send : sends) {
        send.wait();
      }
    }
    rank.messages->flush();
    rank.group.barrier();
  };
  EXPECT_EQ(run_threads(2, true, body), no_errors(2));
  EXPECT_EQ(run_threads(4, false, body), no_errors(4));
}

/// Thousands of messages that nobody has asked for yet keep their order, and large ones among them their place.
TEST(Shm, OrderOfEqualTags) {
  const auto body = [](const ThreadRank& rank) {
    const int peer = 1 - rank.transport.rank();
    constexpr int kCount = 3000;
    const auto size = [](int i) { return i % 500 == 7 ? int64_t{400'000} : int64_t{i % 977}; };
    if (rank.transport.rank() == 0) {
      for (int i = 0; i < kCount; ++i) {
        rank.transport.isend(bytes_of(size(i), i), peer, 3);
      }
      rank.transport.isend(bytes_of(4, 1), peer, 4);
      rank.messages->flush();
    } else {
      at::Tensor last = at::empty({4}, at::kByte);
      rank.transport.irecv(last, peer, 4).wait();  // all others came before
      for (int i = 0; i < kCount; ++i) {
        at::Tensor got = at::empty({size(i)}, at::kByte);
        rank.transport.irecv(got, peer, 3).wait();
        expect_same(fmt::format("message {}", i), got, bytes_of(size(i), i));
      }
    }
  };
  EXPECT_EQ(run_threads(2, false, body), no_errors(2));
}

/// What was asked for arrives while both compute: nobody calls, yet a large message gets through.
TEST(Shm, LargeMessagesWithoutHelpOfEitherThread) {
  std::atomic<int> computing{0};
  const auto body = [&](const ThreadRank& rank) {
    const at::Tensor tensor = bytes_of(5'000'000, 9);
    at::Tensor got = at::zeros({5'000'000}, at::kByte);
    MessageHandle send;
    MessageHandle receive;
    if (rank.transport.rank() == 0) {
      send = rank.transport.isend(tensor, 1, 0);
    } else {
      receive = rank.transport.irecv(got, 0, 0);
    }
    ++computing;
    const auto* last = static_cast<const volatile uint8_t*>(got.const_data_ptr()) + 4'999'990;
    const uint8_t expected = static_cast<const uint8_t*>(tensor.const_data_ptr())[4'999'990];
    const auto start = std::chrono::steady_clock::now();
    while (rank.transport.rank() == 1 && *last != expected) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (std::chrono::steady_clock::now() - start > std::chrono::seconds(20)) {
        throw_internal("the message did not come by itself");
      }
    }
    receive.wait();
    rank.group.barrier();
    send.wait();
    if (rank.transport.rank() == 1) {
      expect_same("the message", got, tensor);
    }
  };
  EXPECT_EQ(run_threads(2, false, body), no_errors(2));
}

/// Both begin on one core: one leaves it, and may be anywhere afterwards as before.
TEST(Shm, RanksThatShareACore) {
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (size_t core = 0; CPU_COUNT(&one) == 0; ++core) {
    if (CPU_ISSET(core, &allowed)) {
      CPU_SET(core, &one);
    }
  }
  const auto body = [&](const ThreadRank& rank) {
    const int peer = 1 - rank.transport.rank();
    const at::Tensor got = at::zeros({2048}, at::kByte);
    for (int round = 0; round < 50; ++round) {
      ::sched_setaffinity(0, sizeof(one), &one);
      ::sched_setaffinity(0, sizeof(allowed), &allowed);
      for (int i = 0; i < 20; ++i) {
        MessageHandle receive = rank.transport.irecv(got, peer, i);
        if (rank.transport.rank() == 0) {
          rank.transport.isend(bytes_of(2048, i), peer, i);
        }
        receive.wait();
        expect_same("a message", got, bytes_of(2048, i));
        if (rank.transport.rank() == 1) {
          rank.transport.isend(got, peer, i);
        }
      }
    }
    cpu_set_t now;
    EXPECT_EQ(::sched_getaffinity(0, sizeof(now), &now), 0);
    EXPECT_TRUE(CPU_EQUAL(&now, &allowed));
  };
  EXPECT_EQ(run_threads(2, true, body), no_errors(2));
}

TEST(Shm, DifferentCallsAreNamed) {
  std::vector<std::string> errors = run_threads(2, false, [](const ThreadRank& rank) {
    const at::Tensor tensor = at::zeros({rank.group.rank() == 0 ? 100 : 200});
    rank.group.all_reduce(tensor);
  });
  EXPECT_THAT(errors[0], HasSubstr("rank 0 calls all_reduce of 400 bytes, rank 1 all_reduce of 800 bytes"));
  errors = run_threads(2, false, [](const ThreadRank& rank) {
    rank.group.rank() == 0 ? rank.group.barrier() : rank.group.broadcast(at::zeros({2}), 0);
  });
  EXPECT_THAT(errors[1], HasSubstr("rank 1 calls broadcast of 8 bytes, rank 0 barrier of 0 bytes"));
}

TEST(Shm, MessageOfAnotherSize) {
  const std::vector<std::string> errors = run_threads(2, false, [](const ThreadRank& rank) {
    if (rank.transport.rank() == 0) {
      rank.transport.isend(at::zeros({4}), 1, 7);
    } else {
      rank.transport.irecv(at::zeros({5}), 0, 7).wait();
    }
  });
  EXPECT_EQ(errors[0], "");
  EXPECT_THAT(errors[1], HasSubstr("message from rank 0 to rank 1 (tag 7) has 16 bytes, its receive 20"));
}

TEST(Group, WhatDoesNotFitIsRefused) {
  const Group one;
  EXPECT_EQ(one.transport(), "self");
  const auto error = [](const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& thrown) {
      return thrown.message();
    }
    return std::string("no error");
  };
  const at::Tensor four = at::zeros({4});
  EXPECT_THAT(
      error([&] { one.all_reduce(at::Tensor()); }),
      HasSubstr("all_reduce needs a tensor with elements in memory, this one is undefined"));
  EXPECT_THAT(
      error([&] {
        one.all_gather({four, four}, four);
      }),
      HasSubstr("is given 2 tensors, the group has 1 ranks"));
  EXPECT_THAT(
      error([&] { one.all_gather({at::zeros({5})}, four); }),
      HasSubstr("rank 0 of the group has 4 elements, its place"));
  EXPECT_THAT(
      error([&] { one.reduce_scatter(four, {at::zeros({4}, at::kLong)}); }), HasSubstr("tensors of Float and Long"));
  EXPECT_THAT(error([&] { one.all_to_all({four}, {}); }), HasSubstr("all_to_all is given 0 tensors"));
  EXPECT_THAT(error([&] { one.broadcast(four, 1); }), HasSubstr("broadcast from rank 1 in a group of 1"));
  std::vector<std::string> errors = run_threads(2, false, [](const ThreadRank& rank) {
    rank.group.all_reduce(at::zeros({4}, at::kComplexFloat), ReduceOp::max);
  });
  EXPECT_THAT(errors[0], HasSubstr("tensors of ComplexFloat cannot be reduced by max"));
}

TEST(ShmSegment, IsPrivateAndHasNoName) {
  ShmSegment segment = ShmSegment::create(1 << 20);
  const SegmentName name = segment.name();
  struct stat status {};
  ASSERT_EQ(::stat(fmt::format("/proc/self/fd/{}", name.fd).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  EXPECT_EQ(status.st_nlink, 0U) << "in no folder";
  segment.data()[77] = 'x';
  const ShmSegment other = ShmSegment::attach(name);
  EXPECT_EQ(other.data()[77], 'x');
  SegmentName wrong = name;
  wrong.inode += 1;
  EXPECT_THROW(ShmSegment::attach(wrong), std::runtime_error);
  wrong = name;
  wrong.fd = 9999;
  EXPECT_THROW(ShmSegment::attach(wrong), std::runtime_error);
  segment.close();
  EXPECT_THROW(ShmSegment::attach(name), std::runtime_error);
  EXPECT_THROW(ShmSegment::create(size_t{1} << 62), std::runtime_error);
}

TEST(ShmSegment, DeathOfAProcessIsSeen) {
  EXPECT_TRUE(is_alive(this_process()));
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  ProcessIdentity identity = this_process();
  identity.pid = child;
  EXPECT_FALSE(is_alive(identity)) << "another process of that number";
  ::kill(child, SIGKILL);
  siginfo_t info;
  ::waitid(P_PID, child, &info, WEXITED | WNOWAIT);
  EXPECT_FALSE(is_alive(identity));
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(is_alive(identity));
}

}  // namespace
}  // namespace shardpipe::comm::test
