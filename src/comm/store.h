#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/socket.h"

namespace shardpipe::comm {

/// One connection to the job's key-value store (c10d's TCPStore). A call blocks while the server does not answer, and
/// throws std::exception when the connection is lost: the monitor's threads are made for both. Calls of several threads
/// wait for each other; a second connection avoids that. This header keeps c10d out of its readers.
class Store {
 public:
  /// Serves the store on a listening socket from this process, and connects to it.
  static Store serve(Descriptor listening, const std::string& prefix);

  /// Connects to a store that some other process serves, and waits for it to appear. Throws Error(rank) naming `who`,
  /// host and port when nothing there answers as a store within the timeout.
  static Store connect(
      const std::string& who,
      const std::string& host,
      int port,
      std::chrono::milliseconds timeout,
      const std::string& prefix);

  /// A connection of its own to the same server.
  Store reconnect(std::chrono::milliseconds timeout) const;

  /// The same connection, other keys.
  Store with_prefix(const std::string& prefix) const;

  void set(const std::string& key, const std::string& value);
  /// The value, or nothing when the key is not there.
  std::optional<std::string> find(const std::string& key);
  /// True when all keys are there.
  bool has(const std::vector<std::string>& keys);
  /// The values of keys that are there.
  std::vector<std::string> get(const std::vector<std::string>& keys);
  /// Adds to a counter (0 when absent) and returns its new value.
  int64_t add(const std::string& key, int64_t delta);
  /// Sets the key if it is absent. Returns the value that it has now.
  std::string set_first(const std::string& key, const std::string& value);

  /// True when this process serves the store.
  bool is_server() const;
  /// Numeric address of the server, and its port.
  const std::string& host() const;
  int port() const;

  struct Impl;
  explicit Store(std::shared_ptr<Impl> impl);
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace shardpipe::comm
