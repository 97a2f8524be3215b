#pragma once

// What a WorkerPool and its processes say to each other.
#include <optional>
#include <string>

#include "base/json.h"
#include "comm/socket.h"
#include "shardpipe/options.h"
#include "shardpipe/tensors.h"

namespace shardpipe {

struct PoolMessage {
  Json head;
  NamedTensors tensors;
};

/// One end of a Unix socket that carries messages: the length of a JSON text, the text, then the bytes of the tensors
/// that it lists. Moves only. All throw Error(io) when the system refuses.
class PoolChannel {
 public:
  PoolChannel() = default;
  explicit PoolChannel(comm::Descriptor socket) : socket_(std::move(socket)) {}
  /// `address`: a name in Linux's abstract namespace, which no file stands for.
  static comm::Descriptor listen(const std::string& address);
  static PoolChannel connect(const std::string& address);
  /// The next who connects to `listening`; nullopt for another user's process.
  static std::optional<PoolChannel> accept(const comm::Descriptor& listening);

  /// False when the other end is gone.
  bool send(const Json& head, const NamedTensors& tensors = {});
  /// nullopt when the other end is gone.
  std::optional<PoolMessage> receive();

  int descriptor() const { return socket_.get(); }
  pid_t peer() const;
  bool connected() const { return socket_.get() >= 0; }
  void close() { socket_ = comm::Descriptor(); }

 private:
  bool write(const void* data, size_t size_bytes);
  bool read(void* data, size_t size_bytes);
  comm::Descriptor socket_;
};

Json to_json(const RunOptions& options);
RunOptions run_options_from_json(const Json& json);
Json to_json(const PlanOptions& options);
PlanOptions plan_options_from_json(const Json& json);

}  // namespace shardpipe
