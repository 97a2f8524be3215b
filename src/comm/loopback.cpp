#include "comm/loopback.h"

#include <cstring>

#include "base/error.h"

namespace shardpipe::comm {

class Loopback::SelfMessage final : public Message {
 public:
  SelfMessage(at::Tensor tensor, int tag, bool is_send) : tensor_(std::move(tensor)), tag_(tag), is_send_(is_send) {}

  void wait() override {
    if (!matched_) {
      throw_internal(
          "a rank waits for a message to itself (tag {}) whose {} was not posted", tag_, is_send_ ? "receive" : "send");
    }
  }
  bool done() override { return matched_; }
  bool matches(int tag, bool is_send) const { return tag_ == tag && is_send_ == is_send; }

  /// The other end has come.
  void meet(const at::Tensor& other) {
    const at::Tensor& from = is_send_ ? tensor_ : other;
    const at::Tensor& to = is_send_ ? other : tensor_;
    if (from.nbytes() != to.nbytes()) {
      throw_internal("a message to itself (tag {}) has {} bytes, its receive {}", tag_, from.nbytes(), to.nbytes());
    }
    if (from.nbytes() > 0) {
      std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
    }
    matched_ = true;
    tensor_.reset();
  }

 protected:
  void recycle() override { delete this; }

 private:
  at::Tensor tensor_;
  int tag_;
  bool is_send_;
  bool matched_ = false;
};

Loopback::Waiting::~Waiting() {
  for (SelfMessage* message : messages) {
    message->release();
  }
}

MessageHandle Loopback::post(const at::Tensor& tensor, int tag, bool is_send) {
  auto& messages = waiting_.messages;
  for (auto it = messages.begin(); it != messages.end(); ++it) {
    if ((*it)->matches(tag, !is_send)) {
      SelfMessage* other = *it;
      other->meet(tensor);
      messages.erase(it);
      other->release();
      return MessageHandle();
    }
  }
  auto* message = new SelfMessage(tensor, tag, is_send);
  message->retain();
  messages.push_back(message);
  return MessageHandle(message);
}

}  // namespace shardpipe::comm
