// Messages and collectives of tensors on devices, through host memory; a program of its own, since it has a stand-in
// for CUDA.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/threads.h"

namespace shardpipe::comm {
namespace {

using test::no_errors;
using test::run_threads;
using test::ThreadRank;
using testing::HasSubstr;

at::Tensor numbers(int64_t count, int rank) {
  return at::arange(count, at::kFloat) * 0.37 + rank;
}

TEST(DeviceTensors, MessagesArriveOnTheDevice) {
  const auto errors = run_threads(2, false, [](const ThreadRank& rank) {
    const int self = rank.transport.rank();
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(self));
    for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{300'000}}) {
      for (const int peer : {1 - self, self}) {
        const at::Tensor out = at::empty({count}, at::device(device).dtype(at::kFloat));
        MessageHandle arrival = rank.transport.irecv(out, peer, 5);
        MessageHandle sent = rank.transport.isend(numbers(count, self).to(device), peer, 5);
        MessageHandle moved = std::move(arrival);
        moved.wait();
        sent.wait();
        EXPECT_EQ(out.device(), device);
        EXPECT_TRUE(out.cpu().equal(numbers(count, peer))) << count << " from " << peer;
      }
    }
    EXPECT_EQ(rank.transport.statistics()[1 - self].bytes_received, 4 * 301'001);
  });
  EXPECT_EQ(errors, no_errors(2));
}

// Every collective gives on devices what it gives on the CPU.
TEST(DeviceTensors, CollectivesAreThoseOfTheCpu) {
  constexpr int kRanks = 3;
  const auto errors = run_threads(kRanks, false, [](const ThreadRank& rank) {
    const int self = rank.group.rank();
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(self % 2));
    const auto expect_same = [&](const std::function<std::vector<at::Tensor>(const at::Device&)>& call) {
      const std::vector<at::Tensor> expected = call(at::kCPU);
      const std::vector<at::Tensor> actual = call(device);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(actual[i].device(), device);
        EXPECT_TRUE(actual[i].cpu().equal(expected[i])) << i;
      }
    };
    const auto empty = [](int64_t count, const at::Device& on) {
      return at::empty({count}, at::device(on).dtype(at::kFloat));
    };
    expect_same([&](const at::Device& on) {
      const at::Tensor sum = numbers(100, self).to(on);
      rank.group.all_reduce(sum);
      const at::Tensor strided = numbers(60, self).view({6, 10}).to(on).t();
      rank.group.all_reduce(strided, ReduceOp::max);
      return std::vector<at::Tensor>{sum, strided};
    });
    expect_same([&](const at::Device& on) {
      std::vector<at::Tensor> outs = {empty(1, on), empty(2, on), empty(3, on)};
      rank.group.all_gather(outs, numbers(self + 1, self).to(on));
      return outs;
    });
    expect_same([&](const at::Device& on) {
      const at::Tensor out = empty(self + 1, on);
      rank.group.reduce_scatter(out, {numbers(1, self).to(on), numbers(2, self).to(on), numbers(3, self).to(on)});
      return std::vector<at::Tensor>{out};
    });
    expect_same([&](const at::Device& on) {
      std::vector<at::Tensor> outs = {empty(4, on), empty(4, on), empty(4, on)};
      const at::Tensor in = numbers(4, self).to(on);
      rank.group.all_to_all(outs, {in, in + 1, in + 2});
      return outs;
    });
    expect_same([&](const at::Device& on) {
      const at::Tensor tensor = numbers(7, self).to(on);
      rank.group.broadcast(tensor, 2);
      return std::vector<at::Tensor>{tensor};
    });
  });
  EXPECT_EQ(errors, no_errors(kRanks));
}

TEST(DeviceTensors, OneCallIsOnOneDevice) {
  const Group group;
  const at::Tensor host = at::zeros({4});
  try {
    group.all_gather({host.to(at::Device(at::kCUDA, 1))}, host);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::internal);
    EXPECT_THAT(error.what(), HasSubstr("all_gather is given tensors on cpu and cuda:1"));
  }
  const at::Tensor on_device = host.to(at::Device(at::kCUDA, 0));
  const at::Tensor out = at::empty_like(on_device);
  group.all_gather({out}, on_device);
  EXPECT_TRUE(out.cpu().equal(host));
}

}  // namespace
}  // namespace shardpipe::comm
