#include "comm/gloo.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "base/error.h"
#include "comm/gloo_message.h"
#include "comm/reaper.h"
#include "comm/store_impl.h"

namespace shardpipe::comm {
namespace {

using c10d::ProcessGroupGloo;

class GlooGroup final : public TransportBackend {
 public:
  GlooGroup(
      c10::intrusive_ptr<ProcessGroupGloo> group,
      std::vector<int> members,
      std::shared_ptr<Reaper> reaper,
      Monitor& monitor)
      : group_(std::move(group)), members_(std::move(members)), reaper_(std::move(reaper)), monitor_(monitor) {}

  MessageHandle isend(const at::Tensor& tensor, int dst, int tag) override {
    GlooMessage* message = start(tensor, dst, "send", [&] { return group_->send(argument_, dst, tag); });
    MessageHandle handle(message);
    message->bytes = static_cast<int64_t>(tensor.nbytes());
    reaper_->keep(message);
    return handle;
  }

  MessageHandle irecv(const at::Tensor& out, int src, int tag) override {
    return MessageHandle(start(out, src, "receive", [&] { return group_->recv(argument_, src, tag); }));
  }

 private:
  template <typename Start>
  GlooMessage* start(const at::Tensor& tensor, int peer, const char* what, const Start& call) {
    monitor_.check();
    argument_[0] = tensor;
    c10::intrusive_ptr<c10d::Work> work;
    std::string problem;
    try {
      work = call();
    } catch (const std::exception& error) {
      problem = error.what();
    }
    argument_[0].reset();
    if (!work) {
      monitor_.lost_connection(members_[peer], problem);
    }
    GlooMessage* message = pool_->take();
    message->begin(pool_, std::move(work), reaper_.get(), &monitor_, members_[peer], what);
    return message;
  }

  std::shared_ptr<MessagePool> pool_ = std::make_shared<MessagePool>();
  c10::intrusive_ptr<ProcessGroupGloo> group_;
  std::vector<int> members_;
  std::shared_ptr<Reaper> reaper_;
  Monitor& monitor_;
  std::vector<at::Tensor> argument_{1};  ///< c10d wants a vector; kept from call to call
};

}  // namespace

struct Gloo::Impl {
  c10::intrusive_ptr<ProcessGroupGloo::Options> device;
  std::shared_ptr<Reaper> reaper = std::make_shared<Reaper>();
  Monitor& monitor;
};

Gloo::Gloo(const std::string& address, Monitor& monitor) : impl_(new Impl{.monitor = monitor}) {
  try {
    if (address.empty()) {
      impl_->device = ProcessGroupGloo::Options::create_default();
    } else {
      impl_->device = ProcessGroupGloo::Options::create();
      impl_->device->devices.push_back(ProcessGroupGloo::createDeviceForHostname(address));
    }
  } catch (const std::exception&) {
    throw Error(
        ErrorCode::rank,
        fmt::format(
            "no network device for the ranks to talk over{}: {}", address.empty() ? "" : " at " + address,
            current_error().message()),
        "GLOO_SOCKET_IFNAME names the interface to use");
  }
}

Gloo::~Gloo() = default;

void Gloo::flush() {
  impl_->reaper->flush();
}

std::shared_ptr<TransportBackend> Gloo::connect(
    const Store& store,
    const std::string& name,
    const std::vector<int>& members,
    int rank,
    std::chrono::milliseconds timeout) {
  try {
    auto options = ProcessGroupGloo::Options::create(timeout);
    options->devices = impl_->device->devices;
    // Only messages between pairs are used, which need no worker threads; c10d wants one.
    options->threads = 1;
    auto keys = c10::make_intrusive<c10d::PrefixStore>(name, store.impl().prefixed);
    auto group = c10::make_intrusive<ProcessGroupGloo>(keys, rank, static_cast<int>(members.size()), options);
    return std::make_shared<GlooGroup>(std::move(group), members, impl_->reaper, impl_->monitor);
  } catch (const std::exception&) {
    const std::string reason = current_error().message();
    impl_->monitor.await_cause();
    throw_rank(
        "rank {}: the ranks of group {} could not connect within {} s: {}", members[rank], name,
        static_cast<double>(timeout.count()) / 1000, reason);
  }
}

}  // namespace shardpipe::comm
