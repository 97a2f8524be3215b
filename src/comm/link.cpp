#include "comm/link.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <thread>

#include "comm/connections.h"
#include "comm/cores.h"

namespace shardpipe::comm {
namespace {

constexpr int64_t kSmallBytes = 16;
constexpr int kSmallRounds = 100;
constexpr int64_t kLargeBytes = int64_t{4} << 20;
constexpr int kLargeRounds = 9;

// Runs the calls at the same time; throws what one of them threw.
template <typename First, typename Second>
void run_both(const First& first, const Second& second) {
  std::exception_ptr problem;
  std::thread thread([&] {
    try {
      second();
    } catch (...) {
      problem = std::current_exception();
    }
  });
  try {
    first();
  } catch (...) {
    thread.join();
    throw;
  }
  thread.join();
  if (problem) {
    std::rethrow_exception(problem);
  }
}

void answer(const Transport& transport, int64_t bytes, int rounds) {
  const at::Tensor message = at::zeros({bytes}, at::kByte);
  for (int round = 0; round < rounds; ++round) {
    transport.irecv(message, 0).wait();
    transport.isend(message, 0).wait();
  }
}

// Seconds of one way.
double ask(const Transport& transport, int64_t bytes, int rounds) {
  const at::Tensor sent = at::zeros({bytes}, at::kByte);
  const at::Tensor received = at::zeros({bytes}, at::kByte);
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    MessageHandle back = transport.irecv(received, 1);
    transport.isend(sent, 1);
    back.wait();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 2);
  }
  const auto middle = seconds.begin() + rounds / 2;
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

// Of all threads of this process.
double busy_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

Link measure_link(const Transport& rank0, const Transport& rank1) {
  Link link;
  run_both(
      [&] {
        const double before = busy_seconds();
        link.message_seconds = ask(rank0, kSmallBytes, kSmallRounds);
        link.busy_seconds = (busy_seconds() - before) / (2 * kSmallRounds);
        const double large = ask(rank0, kLargeBytes, kLargeRounds);
        link.bytes_per_second = static_cast<double>(kLargeBytes) / std::max(large - link.message_seconds, 1e-9);
      },
      [&] {
        answer(rank1, kSmallBytes, kSmallRounds);
        answer(rank1, kLargeBytes, kLargeRounds);
      });
  return link;
}

Link measure_link(int local_ranks) {
  constexpr std::chrono::seconds kTimeout(30);
  const std::string host = "127.0.0.1";
  const std::vector<int> ranks = {0, 1};
  const Store store = Store::serve(listen_on(host, 0), "link");
  Meeting meeting;
  meeting.local_world_size = local_ranks;
  meeting.local_cores = fillable_cores(allowed_cores().size());
  meeting.places.resize(ranks.size());
  std::shared_ptr<Monitor> monitors[2];
  std::unique_ptr<Connections> ends[2];
  Transport transports[2];
  const auto connect = [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    monitors[r] = std::make_shared<Monitor>(rank);
    ends[r] = std::make_unique<Connections>(
        store.reconnect(kTimeout), monitors[r], meeting, rank, TransportChoice::automatic, "link", host, kTimeout);
    transports[r] = Transport(ends[r]->get(ranks).messages, ranks, rank);
  };
  run_both([&] { connect(0); }, [&] { connect(1); });
  const Link link = measure_link(transports[0], transports[1]);
  for (size_t r = 0; r < ranks.size(); ++r) {
    ends[r]->flush();
    monitors[r]->end_waits();
    transports[r] = Transport();
    ends[r].reset();
  }
  return link;
}

}  // namespace shardpipe::comm
