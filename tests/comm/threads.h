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
#include "comm/connections.h"
#include "comm/cores.h"
#include "comm/monitor.h"
#include "comm/shm_collectives.h"
#include "comm/shm_messages.h"
#include "comm/socket.h"
#include "comm/store.h"

namespace shardpipe::comm::test {

struct ThreadRank {
  Transport transport;
  Group group;
  std::shared_ptr<ShmMessages> messages;
  std::shared_ptr<Monitor> monitor;
};

/// All of n ranks with each other.
inline std::vector<std::pair<int, int>> all_pairs(int num_ranks) {
  std::vector<std::pair<int, int>> pairs;
  for (int low = 0; low < num_ranks; ++low) {
    for (int high = low + 1; high < num_ranks; ++high) {
      pairs.emplace_back(low, high);
    }
  }
  return pairs;
}

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

/// Thrown by a rank that takes its connections down without a word.
struct Dropped : std::exception {
  const char* what() const noexcept override { return "dropped"; }
};

/// The same with a store, monitors that watch, and either transport. A rank whose body throws an Error tells the
/// others.
inline std::vector<std::string> run_connected(
    int num_ranks,
    TransportChoice choice,
    const MonitorOptions& given,
    const std::function<void(const ThreadRank&)>& body) {
  constexpr std::chrono::seconds kConnect(30);
  const Store store = Store::serve(listen_on("127.0.0.1", 0), "threads");
  std::vector<int> ranks(num_ranks);
  std::iota(ranks.begin(), ranks.end(), 0);
  std::vector<std::string> errors(num_ranks);
  std::vector<std::shared_ptr<Monitor>> monitors;
  MonitorOptions options = given;
  options.grace = std::chrono::minutes(10);  // the end of a stuck process would end the test
  for (const int rank : ranks) {
    monitors.push_back(std::make_shared<Monitor>(store.reconnect(kConnect), "world", rank, num_ranks, false, options));
  }
  std::vector<std::thread> threads;
  for (const int rank : ranks) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);  // of this thread
      Monitor& monitor = *monitors[rank];
      Meeting meeting;
      meeting.local_world_size = num_ranks;
      meeting.local_cores = fillable_cores(allowed_cores().size());
      meeting.places.resize(num_ranks);
      auto connections = std::make_unique<Connections>(
          store.reconnect(kConnect), monitors[rank], meeting, rank, choice, "world", "127.0.0.1", kConnect);
      try {
        const Connection& connection = connections->get(ranks);
        body({Transport(connection.messages, ranks, rank), connection.group, connection.shm, monitors[rank]});
        connections->flush();
        monitor.finish();
      } catch (const Dropped& dropped) {
        errors[rank] = dropped.what();
      } catch (const Error& error) {
        errors[rank] = error.what();
        monitor.report_failure(error);
        static_cast<void>(connections.release());  // as World does: taking it down could block
      }
      monitor.end_waits();
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
