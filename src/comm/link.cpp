#include "comm/link.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <thread>

#include "comm/gloo.h"
#include "comm/store.h"

namespace shardpipe::comm {
namespace {

constexpr int64_t kSmallBytes = 16;
constexpr int kSmallRounds = 40;
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

Link measure_link() {
  constexpr std::chrono::seconds kTimeout(30);
  const char* const host = "127.0.0.1";
  const std::vector<int> ranks = {0, 1};
  const Store store = Store::serve(listen_on(host, 0), "link");
  Monitor monitors[] = {Monitor(0), Monitor(1)};
  Gloo ends[] = {Gloo(host, monitors[0]), Gloo(host, monitors[1])};
  std::shared_ptr<TransportBackend> backends[2];
  run_both(
      [&] { backends[0] = ends[0].connect(store, "link", ranks, 0, kTimeout); },
      [&] { backends[1] = ends[1].connect(store.reconnect(kTimeout), "link", ranks, 1, kTimeout); });
  const Link link = measure_link(Transport(backends[0], ranks, 0), Transport(backends[1], ranks, 1));
  for (size_t rank = 0; rank < 2; ++rank) {
    ends[rank].flush();
    monitors[rank].end_waits();
    backends[rank].reset();
  }
  return link;
}

}  // namespace shardpipe::comm
