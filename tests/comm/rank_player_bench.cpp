// Latency and bandwidth between ranks 0 and 1.
#include <ATen/Functions.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "comm/rank_player.h"

namespace shardpipe::comm::player {
namespace {

using Clock = std::chrono::steady_clock;

double us(Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

/// Half of a round trip, with the receive posted before the other side sends.
double one_way_us(Transport& all, int64_t bytes, int rounds) {
  const at::Tensor out = at::ones({bytes}, at::kByte);
  const at::Tensor in = at::ones({bytes}, at::kByte);
  const int peer = 1 - all.rank();
  std::vector<double> times;
  MessageHandle receive = all.irecv(in, peer, 0);
  for (int i = 0; i < rounds; ++i) {
    const Clock::time_point start = Clock::now();
    MessageHandle send;
    if (all.rank() == 0) {
      send = all.isend(out, peer, 0);
    }
    receive.wait();
    if (i + 1 < rounds) {
      receive = all.irecv(in, peer, 0);
    }
    if (all.rank() == 1) {
      send = all.isend(out, peer, 0);
    }
    times.push_back(us(Clock::now() - start) / 2);
  }
  return median(times);
}

/// One direction, several messages under way.
double bandwidth_gb_s(Transport& all, int64_t bytes, int count) {
  constexpr int kAhead = 4;
  const Clock::time_point start = Clock::now();
  std::vector<MessageHandle> handles(kAhead);
  std::vector<at::Tensor> tensors(kAhead);
  for (at::Tensor& tensor : tensors) {
    tensor = at::ones({bytes}, at::kByte);
  }
  for (int i = 0; i < count; ++i) {
    const int slot = i % kAhead;
    handles[slot].wait();
    handles[slot] = all.rank() == 0 ? all.isend(tensors[slot], 1, 0) : all.irecv(tensors[slot], 0, 0);
  }
  for (MessageHandle& handle : handles) {
    handle.wait();
  }
  return static_cast<double>(bytes) * count / us(Clock::now() - start) / 1e3;
}

}  // namespace

void bench_messages(World& world) {
  Transport all = world.transport();
  for (const int64_t bytes : {8, 2304, 147'456, 4 << 20}) {
    world.barrier();
    one_way_us(all, bytes, 20);
    world.barrier();
    const double latency = one_way_us(all, bytes, bytes > (1 << 20) ? 100 : 2000);
    world.barrier();
    const double bandwidth = bandwidth_gb_s(all, bytes, bytes > (1 << 20) ? 200 : 2000);
    if (world.rank() == 0) {
      std::printf("%ld bytes: %.1f us one way, %.2f GB/s\n", static_cast<long>(bytes), latency, bandwidth);
    }
  }
  constexpr int kActions = 10'000'000;
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < kActions; ++i) {
    world.monitor().begin_action("1RECV_F0", {.stage = 1, .microbatch = i, .from = 0});
    world.monitor().end_action();
  }
  if (world.rank() == 0) {
    std::printf("begin_action and end_action: %.1f ns\n", us(Clock::now() - start) * 1e3 / kActions);
  }
}

}  // namespace shardpipe::comm::player
