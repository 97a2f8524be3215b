#pragma once

// Ranks that are threads of this process and share memory as processes do.
#include <ATen/Parallel.h>

#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/monitor.h"
#include "comm/shm_collectives.h"
#include "comm/shm_messages.h"

namespace shardpipe::comm::test {

struct ThreadRank {
  Transport transport;
  Group group;
  std::shared_ptr<ShmMessages> messages;
  std::shared_ptr<Monitor> monitor;
};

/// Runs `body` in one thread a rank. Returns what each threw, "" for nothing.
inline std::vector<std::string> run_threads(
    int num_ranks, bool spin, const std::function<void(const ThreadRank&)>& body) {
  const ShmSegment segment = ShmGroup::make_segment(num_ranks);
  std::vector<int> ranks(num_ranks);
  std::iota(ranks.begin(), ranks.end(), 0);
  // All are mapped before any begins: a rank that others look for must have said who it is.
  std::vector<ThreadRank> seats;
  for (const int rank : ranks) {
    const auto monitor = std::make_shared<Monitor>(rank);
    const auto shm =
        std::make_shared<ShmGroup>(ShmSegment::attach(segment.name()), ShmGroup::Seat{ranks, rank, monitor, spin});
    const auto messages = std::make_shared<ShmMessages>(shm);
    seats.push_back(
        {Transport(messages, ranks, rank), Group(std::make_shared<ShmCollectives>(shm), ranks, rank, monitor), messages,
         monitor});
  }
  std::vector<std::string> errors(num_ranks);
  std::vector<std::thread> threads;
  for (const int rank : ranks) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);  // of this thread
      try {
        body(seats[rank]);
      } catch (const std::exception& error) {
        errors[rank] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return errors;
}

inline const std::vector<std::string>& no_errors(int num_ranks) {
  static std::map<int, std::vector<std::string>> lists;
  return lists.try_emplace(num_ranks, num_ranks).first->second;
}

}  // namespace shardpipe::comm::test
