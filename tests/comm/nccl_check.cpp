// The library itself, on GPUs: one rank, a thread, on each. `make gpu-test`; not part of `make test`. Fails where a
// check has too few of them.
#include <gtest/gtest.h>

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "comm/device_stream.h"
#include "comm/group_body.h"
#include "comm/nccl.h"
#include "comm/reduce_tensors.h"
#include "comm/threads.h"

namespace shardpipe::comm::test {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat,       at::kBFloat16,      at::kHalf,   at::kDouble,      at::kLong,
                                     at::kInt,         at::kShort,         at::kChar,   at::kByte,        at::kBool,
                                     at::kFloat8_e5m2, at::kFloat8_e4m3fn, at::kUInt16, at::kComplexFloat};

int num_gpus() {
  return c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
}

at::Tensor input(int rank, int64_t numel, at::ScalarType type, int64_t seed) {
  return type == at::kUInt16 ? input_of(rank, numel, at::kShort, seed).view(type) : input_of(rank, numel, type, seed);
}

bool can_reduce(at::ScalarType type, ReduceOp op) {
  return !at::isComplexType(type) || op == ReduceOp::sum;
}

/// What the collectives add up on the device has the bits of the loops on the CPU.
TEST(Gpu, ReductionsAreThoseOfTheCpu) {
  ASSERT_GE(num_gpus(), 1);
  for (const at::ScalarType type : kTypes) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::product, ReduceOp::min, ReduceOp::max}) {
      if (!can_reduce(type, op)) {
        continue;
      }
      std::vector<at::Tensor> parts;
      std::vector<at::Tensor> on_device;
      for (int rank = 0; rank < 5; ++rank) {
        parts.push_back(input(rank, 10'001, type, 3));
        on_device.push_back(parts.back().to(at::kCUDA));
      }
      const at::Tensor expected = at::empty_like(parts[0]);
      reduce_tensors(expected, parts, op);
      reduce_tensors(on_device[0], on_device, op);
      expect_same(to_string(op), on_device[0].cpu(), expected);
    }
  }
}

TEST(Gpu, StreamPoints) {
  ASSERT_GE(num_gpus(), 1);
  const at::Device device(at::kCUDA, 0);
  Monitor monitor(0);
  const at::Tensor a = at::randn({4096, 4096}, at::device(device));
  at::Tensor b = a;
  for (int i = 0; i < 20; ++i) {
    b = at::mm(b, a).mul_(0.01);
  }
  const c10::Stream side = side_stream(device);
  EXPECT_NE(side, current_stream(device));
  const StreamPoint point(current_stream(device));
  EXPECT_FALSE(point.reached());
  point.block(side);
  const StreamPoint after(side);
  wait_for(after, monitor);
  EXPECT_TRUE(point.reached());
}

using Body = std::function<void(const ThreadRank& rank, const DeviceConnection& connection, at::Device device)>;

std::vector<std::string> run_on_gpus(int ranks, const Body& body) {
  const Store store = Store::serve(listen_on("127.0.0.1", 0), "nccl");
  return run_threads(ranks, false, [&](const ThreadRank& rank) {
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(rank.transport.rank()));
    const c10::DeviceGuard guard(device);
    const NcclSeat seat{rank.transport.ranks(), rank.transport.rank(), device, rank.monitor, all_pairs(ranks)};
    const DeviceConnection connection = connect_nccl(store, "key", seat, rank.transport, std::chrono::seconds(60));
    body(rank, connection, device);
    connection.flush();
  });
}

TEST(Gpu, Collectives) {
  ASSERT_GE(num_gpus(), 2) << "NCCL wants a GPU for each rank";
  const int ranks = std::min(num_gpus(), 4);
  const Body body = [&](const ThreadRank& rank, const DeviceConnection& connection, at::Device device) {
    GroupBackend& group = *connection.collectives;
    const int own = rank.transport.rank();
    int64_t seed = 1;
    for (const at::ScalarType type : kTypes) {
      for (const int64_t numel : {1, 1001, 100'000}) {
        ++seed;
        std::vector<at::Tensor> inputs;
        std::vector<at::Tensor> outs;
        for (int peer = 0; peer < ranks; ++peer) {
          inputs.push_back(input(peer, numel, type, seed));
          outs.push_back(at::zeros_like(inputs.back()).to(device));
        }
        const at::Tensor mine = inputs[own].to(device);
        group.all_gather(outs, mine);
        for (int peer = 0; peer < ranks; ++peer) {
          expect_same("all_gather", outs[peer].cpu(), inputs[peer]);
        }
        const at::Tensor copy = mine.clone();
        group.broadcast(copy, ranks - 1);
        expect_same("broadcast", copy.cpu(), inputs[ranks - 1]);
        std::vector<at::Tensor> sent(ranks, mine);
        group.all_to_all(outs, sent);
        for (int peer = 0; peer < ranks; ++peer) {
          expect_same("all_to_all", outs[peer].cpu(), inputs[peer]);
        }
        const at::Tensor expected = at::empty_like(inputs[0]);
        reduce_tensors(expected, inputs, ReduceOp::sum);
        group.reduce_scatter(copy, sent, ReduceOp::sum);
        expect_same("reduce_scatter", copy.cpu(), expected);
        group.all_reduce(mine, ReduceOp::sum);
        expect_same("all_reduce", mine.cpu(), expected);
      }
    }
    group.barrier();
  };
  EXPECT_EQ(run_on_gpus(ranks, body), no_errors(ranks));
}

/// Everyone begins with sends to everyone, asks in another order, and works on the device in between; what was sent is
/// overwritten once it has been waited for.
TEST(Gpu, Messages) {
  ASSERT_GE(num_gpus(), 2) << "NCCL wants a GPU for each rank";
  const int ranks = std::min(num_gpus(), 4);
  const Body body = [&](const ThreadRank& rank, const DeviceConnection& connection, at::Device device) {
    const int own = rank.transport.rank();
    constexpr int64_t kSizes[] = {3, 0, 5'000'000};
    for (int round = 0; round < 30; ++round) {
      const auto message = [&](int src, int dst, int tag) {
        return at::full({kSizes[tag]}, src * 10 + dst * 100 + tag + 1000 * round, at::kInt);
      };
      std::vector<MessageHandle> sends;
      std::vector<at::Tensor> sent;
      for (int peer = 0; peer < ranks; ++peer) {
        for (int tag = 0; tag < 3 && peer != own; ++tag) {
          sent.push_back(message(own, peer, tag).to(device));
          sends.push_back(connection.messages->isend(sent.back(), peer, tag));
        }
      }
      for (int peer = ranks - 1; peer >= 0; --peer) {
        for (const int tag : {2, 0, 1}) {
          if (peer != own) {
            const at::Tensor out = at::zeros({kSizes[tag]}, at::device(device).dtype(at::kInt));
            connection.messages->irecv(out, peer, tag).wait();
            expect_same("a message", out.cpu(), message(peer, own, tag));
          }
        }
      }
      for (size_t i = 0; i < sends.size(); ++i) {
        sends[i].wait();
        sent[i].fill_(-1);
      }
    }
  };
  EXPECT_EQ(run_on_gpus(ranks, body), no_errors(ranks));
}

}  // namespace
}  // namespace shardpipe::comm::test
