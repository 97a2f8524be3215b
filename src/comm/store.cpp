#include "comm/store.h"

#include <c10/util/Logging.h>

#include <cstdlib>
#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/error.h"
#include "comm/store_impl.h"

namespace shardpipe::comm {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes to_bytes(const std::string& text) {
  return {text.begin(), text.end()};
}

std::string to_text(const Bytes& bytes) {
  return {bytes.begin(), bytes.end()};
}

/// c10d logs every connection that ends with a stack trace; the monitor says in one line what happened. The level is
/// that of the whole process; TORCH_CPP_LOG_LEVEL brings all back.
void quiet_c10d() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
    constexpr int kFatalOnly = 3;
    FLAGS_caffe2_log_level = kFatalOnly;
  }
}

using Connection = c10::intrusive_ptr<c10d::Store>;

/// c10d's handshake has no time limit: what listens but does not answer would hold us for ever. The thread is left
/// behind in that case; the process is about to end.
Connection connect_within(const std::string& host, int port, std::chrono::milliseconds timeout) {
  std::promise<Connection> promise;
  std::future<Connection> future = promise.get_future();
  std::thread([host, port, timeout, promise = std::move(promise)]() mutable {
    try {
      c10d::TCPStoreOptions options;
      options.port = static_cast<uint16_t>(port);
      options.waitWorkers = false;
      options.timeout = timeout;
      promise.set_value(c10::make_intrusive<c10d::TCPStore>(host, options));
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }).detach();
  return future.wait_for(timeout) == std::future_status::ready ? future.get() : Connection();
}

std::shared_ptr<Store::Impl> make_impl(
    Connection connection, std::string host, int port, bool server, const std::string& prefix) {
  auto impl = std::make_shared<Store::Impl>();
  impl->prefixed = c10::make_intrusive<c10d::PrefixStore>(prefix, connection);
  impl->connection = std::move(connection);
  impl->prefix = prefix;
  impl->host = std::move(host);
  impl->port = port;
  impl->server = server;
  return impl;
}

}  // namespace

Store::Store(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Store Store::serve(Descriptor listening, const std::string& prefix) {
  quiet_c10d();
  const int port = port_of(listening);
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.isServer = true;
  options.waitWorkers = false;
  const std::string address = address_of(listening);
  options.masterListenFd = listening.release();
  return Store(make_impl(c10::make_intrusive<c10d::TCPStore>(address, options), address, port, true, prefix));
}

Store Store::connect(
    const std::string& who,
    const std::string& host,
    int port,
    std::chrono::milliseconds timeout,
    const std::string& prefix) {
  quiet_c10d();
  const Clock::time_point start = Clock::now();
  const std::string address = wait_for_listener(who, host, port, timeout);
  const auto left = timeout - std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  std::string reason = "it does not answer";
  try {
    if (Connection connection = connect_within(address, port, std::max(left, std::chrono::milliseconds(100)))) {
      return Store(make_impl(std::move(connection), address, port, false, prefix));
    }
  } catch (const std::exception&) {
    reason = current_error().message();
  }
  throw Error(
      ErrorCode::rank,
      fmt::format(
          "{}: what listens at {}:{} is not the store where the ranks meet (waited {} s): {}", who, host, port,
          static_cast<double>(timeout.count()) / 1000, reason),
      "another program may use this port: name another one (--master HOST:PORT, MASTER_PORT)");
}

Store Store::reconnect(std::chrono::milliseconds timeout) const {
  Connection connection = connect_within(impl_->host, impl_->port, timeout);
  if (!connection) {
    throw_rank("the store at {}:{} does not answer", impl_->host, impl_->port);
  }
  return Store(make_impl(std::move(connection), impl_->host, impl_->port, impl_->server, impl_->prefix));
}

Store Store::with_prefix(const std::string& prefix) const {
  return Store(make_impl(impl_->connection, impl_->host, impl_->port, impl_->server, prefix));
}

void Store::set(const std::string& key, const std::string& value) {
  impl_->prefixed->set(key, to_bytes(value));
}

std::optional<std::string> Store::find(const std::string& key) {
  return impl_->prefixed->check({key}) ? std::optional<std::string>(to_text(impl_->prefixed->get(key))) : std::nullopt;
}

bool Store::has(const std::vector<std::string>& keys) {
  return impl_->prefixed->check(keys);
}

std::vector<std::string> Store::get(const std::vector<std::string>& keys) {
  std::vector<std::string> values;
  for (const Bytes& bytes : impl_->prefixed->multiGet(keys)) {
    values.push_back(to_text(bytes));
  }
  return values;
}

int64_t Store::add(const std::string& key, int64_t delta) {
  return impl_->prefixed->add(key, delta);
}

std::string Store::set_first(const std::string& key, const std::string& value) {
  return to_text(impl_->prefixed->compareSet(key, {}, to_bytes(value)));
}

bool Store::is_server() const {
  return impl_->server;
}

const std::string& Store::host() const {
  return impl_->host;
}

int Store::port() const {
  return impl_->port;
}

}  // namespace shardpipe::comm
