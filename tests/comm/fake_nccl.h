#pragma once

// NCCL's interface over this process's memory: ranks are threads, tensors on the CPU. As strict as NCCL in what the
// host sees: connecting blocks until all ranks of a communicator are there, and so does its first transfer.
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "comm/nccl_api.h"

namespace shardpipe::comm::test {

class FakeNccl {
 public:
  /// Every call from now on that has this name ("init", "error", "group") fails so; kNcclSuccess ends that.
  static void fail(const std::string& call, NcclResult result) {
    const std::lock_guard lock(world().mutex);
    world().failures[call] = result;
  }
  /// Communicators that were made and not taken down.
  static int open() {
    const std::lock_guard lock(world().mutex);
    return world().open;
  }
  /// Most threads' blocks asked for by a communicator of two ranks.
  static int max_blocks() {
    const std::lock_guard lock(world().mutex);
    return world().max_blocks;
  }

  static const NcclApi& api() {
    static const NcclApi table = [] {
      NcclApi fake;
      fake.get_version = [](int* version) {
        *version = 22800;
        return kNcclSuccess;
      };
      fake.get_unique_id = get_unique_id;
      fake.comm_init_rank_config = init;
      fake.comm_abort = abort;
      fake.comm_get_async_error = [](NcclComm*, NcclResult* error) {
        *error = failure("error");
        return kNcclSuccess;
      };
      fake.get_error_string = [](NcclResult result) {
        return result == kNcclRemoteError ? "remote process exited" : "invalid usage";
      };
      fake.get_last_error = [](NcclComm*) { return "the last\nwords"; };
      fake.group_start = [] {
        calls().clear();
        return kNcclSuccess;
      };
      fake.group_end = group_end;
      fake.send = [](const void* data, size_t count, int, int peer, NcclComm* comm, void*) {
        calls().push_back({const_cast<void*>(data), count, peer, comm, true});
        return kNcclSuccess;
      };
      fake.recv = [](void* data, size_t count, int, int peer, NcclComm* comm, void*) {
        calls().push_back({data, count, peer, comm, false});
        return kNcclSuccess;
      };
      return fake;
    }();
    return table;
  }

 private:
  struct Shared {
    int arrived = 0;
    int begun = 0;
    std::map<std::pair<int, int>, std::deque<std::string>> queues;
  };
  struct Seat {
    Shared* shared = nullptr;
    int size = 0;
    int rank = 0;
    bool begun = false;
  };
  struct Call {
    void* data;
    size_t bytes;
    int peer;
    NcclComm* comm;
    bool is_send;
  };
  struct World {
    std::mutex mutex;
    std::condition_variable changed;
    std::map<std::string, Shared> communicators;
    std::map<std::string, NcclResult> failures;
    int ids = 0;
    int open = 0;
    int max_blocks = 0;
  };
  static World& world() {
    static World instance;
    return instance;
  }
  static std::vector<Call>& calls() {
    thread_local std::vector<Call> list;
    return list;
  }
  static NcclResult failure(const std::string& call) {
    const std::lock_guard lock(world().mutex);
    return world().failures[call];
  }
  /// False after so long that a test has failed.
  template <typename Condition>
  static bool wait(std::unique_lock<std::mutex>& lock, const Condition& condition) {
    return world().changed.wait_for(lock, std::chrono::seconds(30), condition);
  }

  static NcclResult get_unique_id(NcclId* id) {
    const std::lock_guard lock(world().mutex);
    std::memset(id->internal, 0, sizeof(id->internal));
    const std::string text = "fake " + std::to_string(++world().ids);
    std::memcpy(id->internal + 64, text.data(), text.size());  // ids are bytes, not text
    return kNcclSuccess;
  }

  static NcclResult init(NcclComm** comm, int size, NcclId id, int rank, NcclConfig* config) {
    const NcclResult failed = failure("init");
    if (failed != kNcclSuccess) {
      return failed;
    }
    std::unique_lock lock(world().mutex);
    if (size == 2) {
      world().max_blocks = std::max(world().max_blocks, config->max_ctas);
    }
    Shared& shared = world().communicators[std::string(id.internal, sizeof(id.internal))];
    ++shared.arrived;
    world().changed.notify_all();
    if (!wait(lock, [&] { return shared.arrived == size; })) {
      return kNcclSystemError;
    }
    *comm = reinterpret_cast<NcclComm*>(new Seat{&shared, size, rank});
    ++world().open;
    return kNcclSuccess;
  }

  static NcclResult abort(NcclComm* comm) {
    const std::lock_guard lock(world().mutex);
    delete reinterpret_cast<Seat*>(comm);
    --world().open;
    return kNcclSuccess;
  }

  static NcclResult group_end() {
    const NcclResult failed = failure("group");
    if (failed != kNcclSuccess || calls().empty()) {
      return failed;
    }
    auto& seat = *reinterpret_cast<Seat*>(calls()[0].comm);
    std::unique_lock lock(world().mutex);
    Shared& shared = *seat.shared;
    if (!seat.begun) {
      seat.begun = true;
      ++shared.begun;
      world().changed.notify_all();
      if (!wait(lock, [&] { return shared.begun == seat.size; })) {
        return kNcclSystemError;
      }
    }
    for (const Call& call : calls()) {
      if (call.is_send) {
        shared.queues[{seat.rank, call.peer}].emplace_back(static_cast<const char*>(call.data), call.bytes);
      }
    }
    world().changed.notify_all();
    for (const Call& call : calls()) {
      if (!call.is_send) {
        auto& queue = shared.queues[{call.peer, seat.rank}];
        if (!wait(lock, [&] { return !queue.empty(); }) || queue.front().size() != call.bytes) {
          return kNcclSystemError;
        }
        std::memcpy(call.data, queue.front().data(), call.bytes);
        queue.pop_front();
      }
    }
    return kNcclSuccess;
  }
};

}  // namespace shardpipe::comm::test
