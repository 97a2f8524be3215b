#pragma once

#include <c10/core/Device.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/group.h"
#include "comm/monitor.h"
#include "comm/store.h"
#include "comm/transport.h"

namespace shardpipe::comm {

struct NcclApi;

/// True where this program's LibTorch has CUDA and NCCL is there.
bool has_nccl();

/// This rank among those that connect.
struct NcclSeat {
  std::vector<int> ranks;  ///< numbers in the world
  int index = 0;           ///< this one's place among them
  at::Device device;       ///< its own: NCCL wants another one for each rank
  std::shared_ptr<Monitor> monitor;
  /// Places of ranks that send each other messages, in any order, the same list on all ranks. A pair costs two
  /// communicators, tens of megabytes of each device.
  std::vector<std::pair<int, int>> pairs;
};

/// Connections of tensors that are on the ranks' devices. Both enqueue on the device and return; what the current
/// stream gets later comes after it. Waits for other ranks throw Error(rank) when one is gone, and so do calls after
/// NCCL has found that out; who waits for the device itself does so by wait_for() of device_stream.h.
struct DeviceConnection {
  std::shared_ptr<TransportBackend> messages;  ///< Error(internal) for ranks that `pairs` does not connect
  std::shared_ptr<GroupBackend> collectives;
  /// Returns when everything that any of the ranks has sent has arrived: all call it, before any takes the connection
  /// down. Throws Error(rank).
  std::function<void()> flush;
};

/// Called by all ranks of the seat's list, which has several; returns when they are connected. `key`: prefix of keys in
/// the store that nobody else uses. `host`: the same ranks, serves nothing else. Throws Error(rank) when that fails;
/// the monitor ends the process where NCCL does not return within the timeout. Needs has_nccl().
DeviceConnection connect_nccl(
    const Store& store,
    const std::string& key,
    const NcclSeat& seat,
    const Transport& host,
    std::chrono::milliseconds timeout);
/// The same by another library.
DeviceConnection connect_nccl(
    const NcclApi& api,
    const Store& store,
    const std::string& key,
    const NcclSeat& seat,
    const Transport& host,
    std::chrono::milliseconds timeout);

}  // namespace shardpipe::comm
