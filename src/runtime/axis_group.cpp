#include "runtime/axis_group.h"

#include <ATen/ops/empty_like.h>

namespace shardpipe::runtime {

void MessageGroup::all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) {
  std::vector<comm::MessageHandle> messages;
  for (int part = 0; part < parts(); ++part) {
    at::Tensor& piece = pieces[static_cast<size_t>(part)];
    if (part == this->part()) {
      piece.copy_(mine);
    } else if (piece.nbytes() > 0) {
      messages.push_back(transport_.irecv(piece, part));
    }
  }
  for (int part = 0; part < parts(); ++part) {
    if (part != this->part() && mine.nbytes() > 0) {
      messages.push_back(transport_.isend(mine, part));
    }
  }
  for (comm::MessageHandle& message : messages) {
    message.wait();
  }
}

void MessageGroup::all_reduce(at::Tensor& tensor) {
  std::vector<at::Tensor> summands;
  for (int part = 0; part < parts(); ++part) {
    summands.push_back(at::empty_like(tensor));
  }
  all_gather(tensor, summands);
  tensor.copy_(summands.front());
  for (size_t part = 1; part < summands.size(); ++part) {
    tensor.add_(summands[part]);
  }
}

void LonePart::all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) {
  for (int part = 0; part < parts_; ++part) {
    at::Tensor& piece = pieces[static_cast<size_t>(part)];
    if (part == part_) {
      piece.copy_(mine);
    } else {
      piece.zero_();
    }
  }
}

WatchedGroup::WatchedGroup(std::shared_ptr<tensor::AxisGroup> group, std::vector<int> ranks, comm::Monitor& monitor)
    : group_(std::move(group)), ranks_(std::move(ranks)), monitor_(monitor) {}

void WatchedGroup::set_action(std::string name, const comm::ActionPlace& place) {
  name_ = std::move(name);
  place_ = place;
}

template <typename F>
void WatchedGroup::watched(const char* what, F call) {
  comm::ActionPlace place = place_;
  // The next part: of two, the other one.
  place.from = ranks_[static_cast<size_t>((part() + 1) % parts())];
  monitor_.begin_action(name_ + what, place);
  call();
  monitor_.begin_action(name_, place_);
}

void WatchedGroup::all_reduce(at::Tensor& tensor) {
  watched(" all_reduce over tp", [&] { group_->all_reduce(tensor); });
}

void WatchedGroup::all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) {
  watched(" all_gather over tp", [&] { group_->all_gather(mine, pieces); });
}

}  // namespace shardpipe::runtime
