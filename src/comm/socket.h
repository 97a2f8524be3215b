#pragma once

#include <chrono>
#include <string>
#include <utility>

namespace shardpipe::comm {

using Clock = std::chrono::steady_clock;

/// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

/// A listening socket on `port` (0: any free one). A loopback host (localhost, 127.x) binds that address only, so that
/// a job of one host cannot be reached from others; any other host binds all addresses. Throws Error(rank) naming host
/// and port when the port is taken or may not be used.
Descriptor listen_on(const std::string& host, int port);
int port_of(const Descriptor& listening);
/// Where this process itself reaches it: the bound address, 127.0.0.1 for all addresses.
std::string address_of(const Descriptor& listening);

/// Waits until something listens at host:port and returns its numeric address. Throws Error(rank) naming `who` waits,
/// host, port and the last reason when the deadline passes or the name has no address.
std::string wait_for_listener(
    const std::string& who, const std::string& host, int port, std::chrono::milliseconds timeout);

bool is_loopback(const std::string& numeric_address);

/// The numeric address that other hosts reach this one at: the one that leads to `peer`, or where `peer` is this host
/// itself, that of the first interface that is up and not loopback. Empty when there is none.
std::string address_toward(const std::string& peer);

}  // namespace shardpipe::comm
