// A stand-in for NCCL between processes, for the stand-in for CUDA (tests/support/fake_cuda): libnccl.so.2 with the
// part of NCCL's interface that Shardpipe uses. Ranks of a communicator are connected by sockets; what one sends
// another comes in the order in which it was sent, and must be received with the size it was sent with. Since streams
// of that CUDA have always finished, a receive returns when its data is there; sends never wait.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

enum Result : int { kSuccess = 0, kSystemError = 2, kInvalidArgument = 4, kRemoteError = 6 };

struct Id {
  char name[128];
};

// Addresses of the stand-in for CUDA carry a mark.
constexpr uintptr_t kDeviceMark = uintptr_t{1} << 62;

bool is_device_address(const void* address) {
  return (std::bit_cast<uintptr_t>(address) & kDeviceMark) != 0;
}

char* host_address(const void* address) {
  return std::bit_cast<char*>(std::bit_cast<uintptr_t>(address) & ~kDeviceMark);
}

bool write_all(int socket, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t written = ::send(socket, data, size, MSG_NOSIGNAL);
    if (written <= 0) {
      if (written < 0 && errno == EINTR) {
        continue;
      }
      return false;
    }
    data += written;
    size -= static_cast<size_t>(written);
  }
  return true;
}

bool read_all(int socket, char* data, size_t size) {
  while (size > 0) {
    const ssize_t got = ::recv(socket, data, size, 0);
    if (got <= 0) {
      if (got < 0 && errno == EINTR) {
        continue;
      }
      return false;
    }
    data += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

/// The connection with one other rank: messages are a size and as many bytes, written by a thread.
class Peer {
 public:
  explicit Peer(int socket) : socket_(socket), writer_([this] { write(); }) {}
  ~Peer() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_one();
    writer_.join();  // what was sent leaves first
    ::close(socket_);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void send(const char* data, size_t size) {
    std::string message(sizeof(size), '\0');
    std::memcpy(message.data(), &size, sizeof(size));
    message.append(data, size);
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(message));
    changed_.notify_one();
  }

  Result recv(char* data, size_t size) {
    size_t sent = 0;
    if (!read_all(socket_, reinterpret_cast<char*>(&sent), sizeof(sent))) {
      return kRemoteError;
    }
    if (sent != size) {
      std::fprintf(stderr, "fake NCCL: %zu bytes are received where %zu were sent\n", size, sent);
      std::abort();  // the real one hangs, or writes beyond the end
    }
    return read_all(socket_, data, size) ? kSuccess : kRemoteError;
  }

 private:
  void write() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return closed_ || !queue_.empty(); });
      if (queue_.empty()) {
        return;
      }
      const std::string message = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      const bool written = write_all(socket_, message.data(), message.size());
      lock.lock();
      if (!written) {
        queue_.clear();  // the other end is gone
      }
    }
  }

  int socket_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> queue_;
  bool closed_ = false;
  std::thread writer_;
};

sockaddr_un address_of(const Id& id, int rank, socklen_t& size) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = std::string(id.name) + "-" + std::to_string(rank);
  std::memcpy(address.sun_path + 1, name.data(), name.size());  // abstract: gone with the process
  size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

struct Communicator {
  std::vector<std::unique_ptr<Peer>> peers;  ///< none for the rank itself
};

// Rank r listens for those above it and connects to those below.
Result connect(Communicator& communicator, const Id& id, int num_ranks, int rank) {
  communicator.peers.resize(static_cast<size_t>(num_ranks));
  socklen_t size = 0;
  const sockaddr_un own = address_of(id, rank, size);
  const int listening = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::bind(listening, reinterpret_cast<const sockaddr*>(&own), size) != 0 || ::listen(listening, num_ranks) != 0) {
    ::close(listening);
    return kSystemError;
  }
  for (int other = 0; other < rank; ++other) {
    const sockaddr_un there = address_of(id, other, size);
    const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (::connect(socket, reinterpret_cast<const sockaddr*>(&there), size) != 0) {
      ::usleep(1000);  // it has not come yet; as the real one, this waits for ever
    }
    write_all(socket, reinterpret_cast<const char*>(&rank), sizeof(rank));
    communicator.peers[static_cast<size_t>(other)] = std::make_unique<Peer>(socket);
  }
  for (int others = rank + 1; others < num_ranks; ++others) {
    const int socket = ::accept(listening, nullptr, nullptr);
    int other = 0;
    if (socket < 0 || !read_all(socket, reinterpret_cast<char*>(&other), sizeof(other))) {
      ::close(listening);
      return kSystemError;
    }
    communicator.peers[static_cast<size_t>(other)] = std::make_unique<Peer>(socket);
  }
  ::close(listening);
  return kSuccess;
}

// Receives of a group wait until its sends are on their way.
thread_local bool in_group = false;
thread_local std::vector<std::function<Result()>> group_receives;

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int ncclGetVersion(int* version) {
  *version = 22907;
  return kSuccess;
}

int ncclGetUniqueId(Id* id) {
  static std::atomic<int> number{0};
  std::snprintf(id->name, sizeof(id->name), "fake-nccl-%d-%d", ::getpid(), number++);
  return kSuccess;
}

int ncclCommInitRankConfig(Communicator** out, int num_ranks, Id id, int rank, void* /*config*/) {
  auto communicator = std::make_unique<Communicator>();
  const Result result = connect(*communicator, id, num_ranks, rank);
  *out = result == kSuccess ? communicator.release() : nullptr;
  return result;
}

int ncclCommAbort(Communicator* communicator) {
  delete communicator;
  return kSuccess;
}

int ncclCommGetAsyncError(Communicator* /*communicator*/, int* error) {
  *error = kSuccess;
  return kSuccess;
}

const char* ncclGetErrorString(int result) {
  return result == kRemoteError ? "remote process exited or there was a network error" : "unhandled system error";
}

const char* ncclGetLastError(Communicator* /*communicator*/) {
  return "";
}

int ncclGroupStart() {
  in_group = true;
  return kSuccess;
}

int ncclGroupEnd() {
  in_group = false;
  Result first = kSuccess;
  for (const std::function<Result()>& receive : std::exchange(group_receives, {})) {
    const Result result = receive();
    first = first == kSuccess ? result : first;
  }
  return first;
}

int ncclSend(const void* data, size_t count, int /*type*/, int peer, Communicator* communicator, void* /*stream*/) {
  if (!is_device_address(data)) {
    return kInvalidArgument;
  }
  communicator->peers[static_cast<size_t>(peer)]->send(host_address(data), count);
  return kSuccess;
}

int ncclRecv(void* data, size_t count, int /*type*/, int peer, Communicator* communicator, void* /*stream*/) {
  if (!is_device_address(data)) {
    return kInvalidArgument;
  }
  const auto receive = [=] { return communicator->peers[static_cast<size_t>(peer)]->recv(host_address(data), count); };
  if (!in_group) {
    return receive();
  }
  group_receives.emplace_back(receive);
  return kSuccess;
}

}  // extern "C"
#pragma GCC visibility pop
