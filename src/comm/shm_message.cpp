#include "comm/shm_message.h"

#include "comm/shm_messages.h"

namespace shardpipe::comm {

void ShmMessage::wait() {
  owner_.wait(*this);
}

bool ShmMessage::done() {
  if (!is_done()) {
    owner_.look();
  }
  return is_done();
}

void ShmMessage::recycle() {
  owner_.put_message(this);
}

void ShmQueue::push(ShmMessage* message) {
  message->next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = message;
  last_ = message;
}

ShmMessage* ShmQueue::pop() {
  ShmMessage* message = first_;
  first_ = message->next;
  return message;
}

ShmMessage* ShmQueue::take(int tag) {
  ShmMessage* before = nullptr;
  for (ShmMessage* message = first_; message != nullptr; before = message, message = message->next) {
    if (message->tag == tag) {
      (before == nullptr ? first_ : before->next) = message->next;
      if (last_ == message) {
        last_ = before;
      }
      return message;
    }
  }
  return nullptr;
}

}  // namespace shardpipe::comm
