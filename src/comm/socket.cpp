#include "comm/socket.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

/// Null with `reason` set when the name does not resolve.
Addresses resolve(const std::string& host, int port, std::string& reason) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (code != 0) {
    reason = ::gai_strerror(code);
    list = nullptr;
  }
  return {list, &::freeaddrinfo};
}

std::string numeric(const sockaddr* address, socklen_t length) {
  char host[NI_MAXHOST] = {};
  return ::getnameinfo(address, length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST) == 0 ? host : "";
}

socklen_t length_of(const sockaddr* address) {
  return address->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

/// 0, or the errno of a connection that did not come about within `limit`.
int try_connect(const addrinfo& to, std::chrono::milliseconds limit) {
  const Descriptor fd(::socket(to.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) {
    return errno;
  }
  if (::connect(fd.get(), to.ai_addr, to.ai_addrlen) == 0) {
    return 0;
  }
  if (errno != EINPROGRESS) {
    return errno;
  }
  pollfd poll_fd{fd.get(), POLLOUT, 0};
  if (::poll(&poll_fd, 1, static_cast<int>(limit.count())) <= 0) {
    return ETIMEDOUT;
  }
  int error = 0;
  socklen_t size = sizeof(error);
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

sockaddr_storage bound_address(const Descriptor& listening, socklen_t& length) {
  sockaddr_storage storage{};
  length = sizeof(storage);
  if (::getsockname(listening.get(), reinterpret_cast<sockaddr*>(&storage), &length) != 0) {
    throw_internal("address of a listening socket: {}", std::strerror(errno));
  }
  return storage;
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

Descriptor listen_on(const std::string& host, int port) {
  // Only where the user wrote a loopback address: many hosts resolve their own name to 127.0.1.1, and others must still
  // reach them.
  const bool loopback = host == "localhost" || is_loopback(host);
  std::string reason;
  const Addresses named = resolve(loopback && host == "localhost" ? "127.0.0.1" : host, port, reason);

  // The wildcard of IPv6 takes IPv4 too; a host without IPv6 falls back to IPv4.
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family = AF_INET6;
  if (loopback && named != nullptr) {
    family = named->ai_family;
    length = named->ai_addrlen;
    std::memcpy(&storage, named->ai_addr, length);
  }
  Descriptor fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0 && !loopback) {
    family = AF_INET;
    fd = Descriptor(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  }
  if (!loopback) {
    if (family == AF_INET6) {
      auto* any = reinterpret_cast<sockaddr_in6*>(&storage);
      any->sin6_family = AF_INET6;
      any->sin6_port = htons(static_cast<uint16_t>(port));
      length = sizeof(*any);
      const int off = 0;
      ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    } else {
      auto* any = reinterpret_cast<sockaddr_in*>(&storage);
      any->sin_family = AF_INET;
      any->sin_port = htons(static_cast<uint16_t>(port));
      length = sizeof(*any);
    }
  }
  // Without it a port stays taken for a minute after the job that used it.
  const int on = 1;
  if (fd.get() < 0 || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      ::bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) {
    throw Error(
        ErrorCode::rank, fmt::format("cannot listen on {}:{}: {}", host, port, std::strerror(errno)),
        "end the program that uses the port, or name another one (--master HOST:PORT, MASTER_PORT)");
  }
  return fd;
}

int port_of(const Descriptor& listening) {
  socklen_t length = 0;
  const sockaddr_storage storage = bound_address(listening, length);
  // sin_port and sin6_port lie at the same place.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

std::string address_of(const Descriptor& listening) {
  socklen_t length = 0;
  const sockaddr_storage storage = bound_address(listening, length);
  const std::string address = numeric(reinterpret_cast<const sockaddr*>(&storage), length);
  return is_loopback(address) ? address : "127.0.0.1";
}

std::string wait_for_listener(
    const std::string& who, const std::string& host, int port, std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  std::chrono::milliseconds pause(2);
  std::string reason;
  while (true) {
    // Resolved anew each time: the name of a host that is only just starting may not be known yet.
    const Addresses addresses = resolve(host, port, reason);
    for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
      const int error = try_connect(*address, std::min(timeout, std::chrono::milliseconds(3000)));
      if (error == 0) {
        return numeric(address->ai_addr, address->ai_addrlen);
      }
      reason = std::strerror(error);
    }
    if (Clock::now() + pause >= deadline) {
      throw Error(
          ErrorCode::rank,
          fmt::format(
              "{}: cannot reach {}:{}, where the ranks meet, within {} s: {}", who, host, port,
              static_cast<double>(timeout.count()) / 1000, reason),
          "check MASTER_ADDR and MASTER_PORT (--master), and that rank 0 runs");
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(100));
  }
}

bool is_loopback(const std::string& numeric_address) {
  return numeric_address.rfind("127.", 0) == 0 || numeric_address == "::1";
}

std::string address_toward(const std::string& peer) {
  std::string reason;
  const Addresses addresses = resolve(peer, 9, reason);
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    // Connecting a datagram socket sends nothing, but picks the route.
    const Descriptor fd(::socket(address->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage local{};
    socklen_t length = sizeof(local);
    if (fd.get() >= 0 && ::connect(fd.get(), address->ai_addr, address->ai_addrlen) == 0 &&
        ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&local), &length) == 0) {
      std::string found = numeric(reinterpret_cast<sockaddr*>(&local), length);
      if (!found.empty() && !is_loopback(found)) {
        return found;
      }
    }
  }
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) {
    return "";
  }
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> interfaces(list, &::freeifaddrs);
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr != nullptr && entry->ifa_addr->sa_family == AF_INET && (entry->ifa_flags & IFF_UP) != 0 &&
        (entry->ifa_flags & IFF_LOOPBACK) == 0) {
      return numeric(entry->ifa_addr, length_of(entry->ifa_addr));
    }
  }
  return "";
}

}  // namespace shardpipe::comm
