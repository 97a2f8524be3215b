// Shared memory against Gloo between the processes of one host, side by side: comm_bench [RANKS...] (2 4 8).
//
// The ranks of one run have all candidates at once and try them in turn, so that a change of the machine's speed meets
// all; medians over the turns. `c10d` is Gloo's own all-reduce as every user of c10d has it; `gloo` ours over Gloo's
// messages, which sums in the order of the ranks. Two ranks also copy 4 MB each at the same time, memory to memory:
// the limit for the large ones. Goals with two ranks: 576 floats 20 times and 4 MB 3 times as fast as c10d, 4 MB at a
// quarter of the copy's bytes per second, a message of 2 KB one way in a tenth of Gloo's time; with 4 and 8 ranks no
// slower than Gloo.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/error.h"
#include "comm/launcher.h"
#include "comm/world.h"

namespace shardpipe::comm {
namespace {

using Clock = std::chrono::steady_clock;

struct Candidate {
  std::string name;
  std::function<void()> call;
};

struct Ranks {
  World shm;
  World gloo;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> c10d;
};

/// Microseconds a call on rank 0: the median over the turns of the mean of `calls`.
std::vector<double> measure(Ranks& ranks, const std::vector<Candidate>& candidates, int turns, int calls) {
  std::vector<std::vector<double>> times(candidates.size());
  for (int turn = 0; turn <= turns; ++turn) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      ranks.shm.group().barrier();
      const Clock::time_point start = Clock::now();
      for (int call = 0; call < calls; ++call) {
        candidates[i].call();
      }
      if (turn > 0) {  // the first one warms up
        times[i].push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count() / calls);
      }
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& list : times) {
    std::nth_element(list.begin(), list.begin() + turns / 2, list.end());
    medians.push_back(list[turns / 2]);
  }
  return medians;
}

void report(
    const Ranks& ranks,
    const std::string& what,
    const std::vector<Candidate>& candidates,
    const std::vector<double>& us) {
  if (ranks.shm.rank() != 0) {
    return;
  }
  std::string line = fmt::format("{:<34}", what);
  for (size_t i = 0; i < candidates.size(); ++i) {
    line += fmt::format(" {} {:>8.1f} us ", candidates[i].name, us[i]);
    if (i > 0) {
      line += fmt::format("(x{:.2f})", us[i] / us[0]);
    }
  }
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

void all_reduces(Ranks& ranks, int64_t numel, at::ScalarType type, int turns, int calls) {
  const at::Tensor tensor = at::zeros({numel}, type);
  tensor.fill_(0);  // touches the memory
  std::vector<at::Tensor> list{tensor};
  const std::vector<Candidate> candidates = {
      {"shm", [&] { ranks.shm.group().all_reduce(tensor); }},
      {"gloo", [&] { ranks.gloo.group().all_reduce(tensor); }},
      {"c10d", [&] { ranks.c10d->allreduce(list)->wait(); }},
  };
  report(
      ranks, fmt::format("{} ranks, all_reduce {} {}", ranks.shm.size(), numel, c10::toString(type)), candidates,
      measure(ranks, candidates, turns, calls));
}

/// Half of a round trip.
void messages(Ranks& ranks, int64_t bytes, int turns, int calls) {
  const at::Tensor out = at::ones({bytes}, at::kByte);
  const at::Tensor in = at::ones({bytes}, at::kByte);
  const auto round_trip = [&](const Transport& transport) {
    MessageHandle receive = transport.irecv(in, 1 - transport.rank(), 0);
    if (transport.rank() == 0) {
      MessageHandle send = transport.isend(out, 1, 0);
      receive.wait();
      send.wait();
    } else {
      receive.wait();
      transport.isend(out, 0, 0).wait();
    }
  };
  const std::vector<Candidate> candidates = {
      {"shm", [&] { round_trip(ranks.shm.transport()); }},
      {"gloo", [&] { round_trip(ranks.gloo.transport()); }},
  };
  std::vector<double> us = measure(ranks, candidates, turns, calls);
  std::for_each(us.begin(), us.end(), [](double& time) { time /= 2; });
  report(ranks, fmt::format("2 ranks, message of {} bytes one way", bytes), candidates, us);
}

void two_ranks(Ranks& ranks) {
  constexpr int64_t kLarge = 1 << 20;  // floats
  all_reduces(ranks, 576, at::kFloat, 31, 100);
  all_reduces(ranks, 36'864, at::kFloat, 21, 20);
  messages(ranks, 2048, 31, 100);
  messages(ranks, 147'456, 21, 20);
  messages(ranks, kLarge * 4, 21, 4);
  const at::Tensor tensor = at::zeros({kLarge});
  tensor.fill_(0);
  const at::Tensor from = at::ones({kLarge});
  const at::Tensor to = at::ones({kLarge});
  std::vector<at::Tensor> list{tensor};
  const std::vector<Candidate> candidates = {
      {"shm", [&] { ranks.shm.group().all_reduce(tensor); }},
      {"gloo", [&] { ranks.gloo.group().all_reduce(tensor); }},
      {"c10d", [&] { ranks.c10d->allreduce(list)->wait(); }},
      {"memcpy by both", [&] { std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), kLarge * 4); }},
  };
  report(ranks, "2 ranks, all_reduce 4 MB", candidates, measure(ranks, candidates, 31, 4));
  all_reduces(ranks, 2 * kLarge, at::kBFloat16, 11, 4);
}

void run_rank() {
  at::set_num_threads(1);
  const Environment environment = environment_from_variables().value();
  WorldOptions with_gloo;
  with_gloo.transport = TransportChoice::gloo;
  Ranks ranks{World::connect(environment), World::connect(environment, with_gloo), nullptr};
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(environment.master_port);
  options.waitWorkers = false;
  auto store = c10::make_intrusive<c10d::PrefixStore>(
      "bench", c10::make_intrusive<c10d::TCPStore>(environment.master_host, options));
  auto gloo = c10d::ProcessGroupGloo::Options::create(std::chrono::seconds(60));
  gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  ranks.c10d = c10::make_intrusive<c10d::ProcessGroupGloo>(store, environment.rank, environment.world_size, gloo);
  if (environment.world_size == 2) {
    two_ranks(ranks);
  } else {
    all_reduces(ranks, 576, at::kFloat, 11, 20);
    all_reduces(ranks, 36'864, at::kFloat, 11, 10);
    all_reduces(ranks, 1 << 20, at::kFloat, 7, 2);
  }
  ranks.shm.barrier();
  ranks.gloo.finish();
  ranks.shm.finish();
}

int run(std::vector<std::string> sizes) {
  if (sizes.empty()) {
    sizes = {"2", "4", "8"};
  }
  for (const std::string& size : sizes) {
    LaunchOptions options;
    options.nproc = std::atoi(size.c_str());
    options.program = {"/proc/self/exe"};
    if (const int status = launch(options); status != 0) {
      return status;
    }
  }
  return 0;
}

}  // namespace
}  // namespace shardpipe::comm

int main(int argc, char** argv) {
  using namespace shardpipe::comm;
  try {
    if (environment_from_variables()) {
      run_rank();
      return 0;
    }
    return run({argv + 1, argv + argc});
  } catch (...) {
    std::_Exit(World::fail(shardpipe::current_error()));
  }
}
