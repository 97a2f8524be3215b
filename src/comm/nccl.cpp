#include "comm/nccl.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "comm/await_keys.h"
#include "comm/collectives.h"
#include "comm/message_group.h"
#include "comm/nccl_channel.h"
#include "comm/ordered_messages.h"

namespace shardpipe::comm {
namespace {

using Tensors = std::vector<at::Tensor>;

/// Rounds of grouped transfers on the current stream, where a collective belongs: nobody goes on without its result.
class NcclExchange final : public Exchange {
 public:
  NcclExchange(const NcclApi& api, const NcclId& id, const NcclSeat& seat, const Transport& host)
      : seat_(seat), host_(host), communicator_(api, id, host.size(), host.rank(), 0) {}
  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }

  void run(const Tensors& outs, const Tensors& ins) override {
    const auto pieces = [&](const Tensors& tensors) {
      std::vector<NcclCommunicator::Piece> list;
      for (int peer = 0; peer < size(); ++peer) {
        if (peer != rank() && tensors[peer].defined() && tensors[peer].nbytes() > 0) {
          list.push_back({tensors[peer], peer});
        }
      }
      return list;
    };
    try {
      communicator_.exchange(pieces(ins), pieces(outs), current_stream(seat_.device));
    } catch (const NcclFailure& failure) {
      throw_nccl(seat_, -1, "a collective", failure);
    }
  }

  void barrier() override { comm::barrier(host_); }

  int64_t wait_ns() const override { return host_.wait_ns(); }

 private:
  NcclSeat seat_;
  Transport host_;
  NcclCommunicator communicator_;
};

/// Ids go from one rank to others through the store.
class IdExchange {
 public:
  IdExchange(
      const NcclApi& api,
      const Store& store,
      const std::string& key,
      const NcclSeat& seat,
      std::chrono::milliseconds timeout)
      : api_(api), store_(store), key_(key), seat_(seat), timeout_(timeout) {}

  /// The first of the places makes the id.
  NcclId share(const std::string& name, int maker) {
    const std::string key = fmt::format("{}/nccl/{}", key_, name);
    NcclId id{};
    if (seat_.index == maker) {
      id = NcclCommunicator::make_id(api_);
      store_.set(key, std::string(id.internal, sizeof(id.internal)));
      return id;
    }
    if (!await_keys(store_, *seat_.monitor, {key}, timeout_)) {
      throw_rank(
          "rank {}: rank {} did not come to connect over NCCL within {} s", seat_.ranks[seat_.index],
          seat_.ranks[maker], static_cast<double>(timeout_.count()) / 1000);
    }
    const std::string found = store_.get({key}).front();
    std::memcpy(id.internal, found.data(), std::min(found.size(), sizeof(id.internal)));
    return id;
  }

 private:
  const NcclApi& api_;
  Store store_;
  const std::string& key_;
  const NcclSeat& seat_;
  std::chrono::milliseconds timeout_;
};

}  // namespace

bool has_nccl() {
  return NcclApi::find() != nullptr;
}

DeviceConnection connect_nccl(
    const Store& store,
    const std::string& key,
    const NcclSeat& seat,
    const Transport& host,
    std::chrono::milliseconds timeout) {
  const NcclApi* api = NcclApi::find();
  if (api == nullptr) {
    throw_internal("NCCL is not there, and ranks were to connect over it");
  }
  return connect_nccl(*api, store, key, seat, host, timeout);
}

DeviceConnection connect_nccl(
    const NcclApi& api,
    const Store& store,
    const std::string& key,
    const NcclSeat& seat,
    const Transport& host,
    std::chrono::milliseconds timeout) {
  const ActionScope action(*seat.monitor, "NCCL connect");
  const c10::DeviceGuard guard(seat.device);
  IdExchange ids(api, store, key, seat, timeout);
  try {
    const auto channel = std::make_shared<NcclChannel>(seat);
    // Connecting blocks both ranks of a pair. All go by the same order of all pairs, so the first pair that is not
    // connected yet is the next one of both its ranks: somebody always goes on.
    std::vector<std::pair<int, int>> pairs = seat.pairs;
    for (auto& [low, high] : pairs) {
      if (low > high) {
        std::swap(low, high);
      }
    }
    std::sort(pairs.begin(), pairs.end());
    pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
    for (const auto& [low, high] : pairs) {
      if (low != high && (low == seat.index || high == seat.index)) {
        const NcclId up = ids.share(fmt::format("{}-{}/up", low, high), low);
        const NcclId down = ids.share(fmt::format("{}-{}/down", low, high), low);
        channel->connect(api, low + high - seat.index, up, down);
      }
    }
    auto exchange = std::make_unique<NcclExchange>(api, ids.share("all", 0), seat, host);
    // Here, too, the first round connects.
    const Tensors tokens(seat.ranks.size(), at::zeros({1}, at::device(seat.device).dtype(at::kByte)));
    Tensors heard;
    for (const at::Tensor& token : tokens) {
      heard.push_back(at::empty_like(token));
    }
    exchange->run(heard, tokens);
    wait_for(StreamPoint(current_stream(seat.device)), *seat.monitor);

    DeviceConnection connection;
    connection.messages = std::make_shared<OrderedMessages>(channel, host);
    connection.collectives = std::make_shared<MessageGroup>(std::move(exchange), "nccl");
    connection.flush = [channel, host, device = seat.device, monitor = seat.monitor] {
      wait_for(StreamPoint(current_stream(device)), *monitor);
      channel->flush();
      barrier(host);
    };
    return connection;
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    const std::string reason = current_error().message();
    seat.monitor->await_cause();
    throw_rank(
        "rank {}: ranks {} could not connect over NCCL on {}: {}", seat.ranks[seat.index], fmt::join(seat.ranks, ", "),
        seat.device.str(), reason);
  }
}

}  // namespace shardpipe::comm
