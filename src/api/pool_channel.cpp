#include "api/pool_channel.h"

#include <ATen/ATen.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "graph/graph.h"
#include "plan/layout_json.h"

namespace shardpipe {
namespace {

[[noreturn]] void fail(const char* what) {
  throw Error(ErrorCode::io, fmt::format("worker pool: cannot {}: {}", what, std::strerror(errno)));
}

comm::Descriptor make_socket() {
  comm::Descriptor made(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (made.get() < 0) {
    fail("make a socket");
  }
  return made;
}

std::pair<sockaddr_un, socklen_t> abstract(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.size() + 1 > sizeof(address.sun_path)) {
    throw_internal("the address {} is too long", name);
  }
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
}

ucred credentials(const comm::Descriptor& socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    fail("see who connects");
  }
  return peer;
}

}  // namespace

comm::Descriptor PoolChannel::listen(const std::string& address) {
  comm::Descriptor made = make_socket();
  const auto [place, size] = abstract(address);
  if (::bind(made.get(), reinterpret_cast<const sockaddr*>(&place), size) != 0 || ::listen(made.get(), 128) != 0) {
    fail("listen");
  }
  return made;
}

PoolChannel PoolChannel::connect(const std::string& address) {
  comm::Descriptor made = make_socket();
  const auto [place, size] = abstract(address);
  if (::connect(made.get(), reinterpret_cast<const sockaddr*>(&place), size) != 0) {
    throw Error(
        ErrorCode::usage, fmt::format("there is no worker pool at \"{}\": {}", address, std::strerror(errno)),
        "this command is for a program's WorkerPool to start");
  }
  return PoolChannel(std::move(made));
}

std::optional<PoolChannel> PoolChannel::accept(const comm::Descriptor& listening) {
  comm::Descriptor made(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (made.get() < 0 || credentials(made).uid != ::geteuid()) {
    return std::nullopt;
  }
  return PoolChannel(std::move(made));
}

pid_t PoolChannel::peer() const {
  return credentials(socket_).pid;
}

bool PoolChannel::write(const void* data, size_t size_bytes) {
  const char* at = static_cast<const char*>(data);
  while (size_bytes > 0) {
    const ssize_t count = ::send(socket_.get(), at, size_bytes, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return false;
    }
    at += count;
    size_bytes -= static_cast<size_t>(count);
  }
  return true;
}

bool PoolChannel::read(void* data, size_t size_bytes) {
  char* at = static_cast<char*>(data);
  while (size_bytes > 0) {
    const ssize_t count = ::recv(socket_.get(), at, size_bytes, 0);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return false;
    }
    at += count;
    size_bytes -= static_cast<size_t>(count);
  }
  return true;
}

bool PoolChannel::send(const Json& head, const NamedTensors& tensors) {
  Json listed = {{"head", head}, {"tensors", Json::array()}};
  for (const auto& [name, tensor] : tensors) {
    listed["tensors"].push_back({name, graph::dtype_name(tensor.scalar_type()), tensor.sizes().vec()});
  }
  const std::string text = listed.dump();
  const uint64_t length = text.size();
  if (!write(&length, sizeof(length)) || !write(text.data(), text.size())) {
    return false;
  }
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor data = tensor.contiguous();
    if (!write(data.const_data_ptr(), data.nbytes())) {
      return false;
    }
  }
  return true;
}

std::optional<PoolMessage> PoolChannel::receive() {
  uint64_t length = 0;
  if (!read(&length, sizeof(length))) {
    return std::nullopt;
  }
  std::string text(length, '\0');
  if (!read(text.data(), text.size())) {
    return std::nullopt;
  }
  const Json listed = parse_json(text, "a message of the worker pool");
  PoolMessage message{listed.at("head"), {}};
  for (const Json& entry : listed.at("tensors")) {
    const std::string dtype = entry.at(1);
    at::Tensor tensor = at::empty(entry.at(2).get<std::vector<int64_t>>(), graph::parse_dtype(dtype).value());
    if (!read(tensor.mutable_data_ptr(), tensor.nbytes())) {
      return std::nullopt;
    }
    message.tensors.emplace_back(entry.at(0).get<std::string>(), std::move(tensor));
  }
  return message;
}

Json to_json(const RunOptions& options) {
  Json json = {{"chunks", options.chunks}, {"loss", options.loss}};
  json["chunk"] = Json::object();
  for (const auto& [name, dim] : options.chunk) {
    json["chunk"][name] = dim ? Json(*dim) : Json();
  }
  json["merge"] = Json::object();
  for (const auto& [name, rule] : options.merge) {
    json["merge"][name] = {static_cast<int>(rule.kind), rule.dim};
  }
  return json;
}

RunOptions run_options_from_json(const Json& json) {
  RunOptions options;
  options.chunks = json.at("chunks");
  options.loss = json.at("loss");
  for (const auto& [name, dim] : json.at("chunk").items()) {
    options.chunk[name] = dim.is_null() ? std::nullopt : std::optional(dim.get<int>());
  }
  for (const auto& [name, rule] : json.at("merge").items()) {
    options.merge[name] = {static_cast<MergeRule::Kind>(rule.at(0).get<int>()), rule.at(1).get<int>()};
  }
  return options;
}

Json to_json(const PlanOptions& options) {
  return {
      {"layout", plan::layout_to_json(options.layout)},
      {"threads", options.threads},
      {"device", options.device},
      {"kernels", options.kernels},
      {"verify", options.verify_files}};
}

PlanOptions plan_options_from_json(const Json& json) {
  PlanOptions options;
  options.layout = plan::layout_from_json(json.at("layout"));
  options.threads = json.at("threads");
  options.device = json.at("device");
  options.kernels = json.at("kernels");
  options.verify_files = json.at("verify");
  return options;
}

}  // namespace shardpipe
