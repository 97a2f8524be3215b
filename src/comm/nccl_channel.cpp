#include "comm/nccl_channel.h"

#include <ATen/Functions.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "comm/nccl.h"

namespace shardpipe::comm {
namespace {

// Several transfers wait on the device at the same time, and a collective among them must find room: an H100 has 132
// multiprocessors, NCCL would take up to 32 for each.
constexpr int kMaxBlocks = 8;

}  // namespace

void throw_nccl(const NcclSeat& seat, int peer, const char* what, const NcclFailure& failure) {
  if (failure.lost && peer >= 0) {
    seat.monitor->lost_connection(peer, failure.what());
  }
  if (failure.lost) {
    std::vector<int> others = seat.ranks;
    others.erase(others.begin() + seat.index);
    seat.monitor->lost_connection(
        fmt::format("{} {}", others.size() == 1 ? "rank" : "one of ranks", fmt::join(others, ", ")), failure.what());
  }
  seat.monitor->check();
  throw_rank("rank {}: NCCL failed in {}: {}", seat.ranks[seat.index], what, failure.what());
}

struct NcclChannel::Link {
  Link(const NcclApi& api, const NcclId& id, int rank, at::Device device)
      : communicator(api, id, 2, rank, kMaxBlocks), stream(side_stream(device)), last(stream), peer(1 - rank) {}
  NcclCommunicator communicator;
  c10::Stream stream;
  StreamPoint last;  ///< behind what was begun
  int peer;          ///< the other one's number within the pair
};

class NcclChannel::Transfer final : public DeviceTransfer {
 public:
  Transfer(
      std::shared_ptr<const NcclSeat> seat,
      std::shared_ptr<Link> link,
      int peer,
      const at::Tensor& tensor,
      bool is_send)
      : seat_(std::move(seat)),
        link_(std::move(link)),
        peer_(peer),
        tensor_(tensor),
        is_send_(is_send),
        start_(current_stream(tensor.device())) {}

  void begin() override {
    start_.block(link_->stream);
    const std::vector<NcclCommunicator::Piece> pieces = {{tensor_, link_->peer}};
    const std::span<const NcclCommunicator::Piece> none;
    try {
      link_->communicator.exchange(is_send_ ? pieces : none, is_send_ ? none : pieces, link_->stream);
    } catch (const NcclFailure& failure) {
      throw_nccl(*seat_, seat_->ranks[peer_], is_send_ ? "a send" : "a receive", failure);
    }
    if (!tensor_.device().is_cpu()) {
      tensor_.record_stream(link_->stream);  // its memory is not used again before the stream has passed
    }
    tensor_.reset();
    end_.emplace(link_->stream);
    link_->last = StreamPoint(link_->stream);
  }

  void join() override { end_->block(current_stream(link_->stream.device())); }

 private:
  std::shared_ptr<const NcclSeat> seat_;
  std::shared_ptr<Link> link_;
  int peer_;
  at::Tensor tensor_;
  bool is_send_;
  StreamPoint start_;
  std::optional<StreamPoint> end_;
};

NcclChannel::NcclChannel(const NcclSeat& seat) : seat_(std::make_shared<NcclSeat>(seat)) {}

NcclChannel::~NcclChannel() = default;

void NcclChannel::connect(const NcclApi& api, int peer, const NcclId& up, const NcclId& down) {
  const bool is_lower = seat_->index < peer;
  const int rank = is_lower ? 0 : 1;
  const auto up_link = std::make_shared<Link>(api, up, rank, seat_->device);
  const auto down_link = std::make_shared<Link>(api, down, rank, seat_->device);
  links_[peer] = is_lower ? Links{up_link, down_link} : Links{down_link, up_link};
  // A communicator's first transfer makes the connection and so blocks both hosts: here, where both are, first upward.
  const at::Tensor token = at::zeros({1}, at::device(seat_->device).dtype(at::kByte));
  for (const bool upward : {true, false}) {
    const std::unique_ptr<DeviceTransfer> transfer = upward == is_lower ? send(token, peer) : recv(token, peer);
    transfer->begin();
  }
  flush();
}

const NcclChannel::Links& NcclChannel::links(int peer) const {
  const auto found = links_.find(peer);
  if (found == links_.end()) {
    throw_internal(
        "ranks {} and {} are not connected for messages over NCCL", seat_->ranks[seat_->index], seat_->ranks[peer]);
  }
  return found->second;
}

std::unique_ptr<DeviceTransfer> NcclChannel::send(const at::Tensor& tensor, int dst) {
  return std::make_unique<Transfer>(seat_, links(dst).out, dst, tensor, true);
}

std::unique_ptr<DeviceTransfer> NcclChannel::recv(const at::Tensor& out, int src) {
  return std::make_unique<Transfer>(seat_, links(src).in, src, out, false);
}

void NcclChannel::flush() {
  for (const auto& [peer, links] : links_) {
    wait_for(links.out->last, *seat_->monitor);
    wait_for(links.in->last, *seat_->monitor);
  }
}

}  // namespace shardpipe::comm
