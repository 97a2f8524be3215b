#include "comm/shm_messages.h"

#include <cstring>

#include "base/error.h"

namespace shardpipe::comm {

ShmMessages::ShmMessages(std::shared_ptr<ShmGroup> group) : group_(std::move(group)) {
  const int size = group_->size();
  const int rank = group_->rank();
  const ShmLayout& layout = group_->layout();
  peers_.resize(static_cast<size_t>(size));
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank) {
      peers_[static_cast<size_t>(peer)] = std::make_unique<Peer>(
          group_->at<ShmRing>(layout.ring(rank, peer)), group_->at<ShmRing>(layout.ring(peer, rank)));
    }
  }
}

ShmMessages::~ShmMessages() {
  stop_ = true;
  if (thread_.joinable()) {
    group_->member(group_->rank()).comm_bell.raise();
    thread_.join();
  }
  // What is still under way: nobody waits for it any more.
  const auto drop = [](ShmQueue& queue) {
    while (!queue.empty()) {
      queue.pop()->release();
    }
  };
  for (std::unique_ptr<Peer>& peer : peers_) {
    if (!peer) {
      continue;
    }
    for (ShmQueue& queue : peer->posted) {
      drop(queue);
    }
    drop(peer->in_parts);
    for (const Outgoing& outgoing : peer->outgoing) {
      if (outgoing.message != nullptr) {
        outgoing.message->release();
      }
    }
    for (const auto* messages : {&peer->offered, &peer->asked}) {
      for (const auto& [id, message] : *messages) {
        message->release();
      }
    }
  }
  for (ShmMessage* message : free_) {
    delete message;
  }
}

ShmMessage* ShmMessages::take_message(const at::Tensor& tensor, bool is_send, int peer, int tag) {
  ShmMessage* message = nullptr;
  {
    const std::lock_guard lock(free_mutex_);
    if (!free_.empty()) {
      message = free_.back();
      free_.pop_back();
    }
  }
  if (message == nullptr) {
    message = new ShmMessage(*this);
  }
  message->tensor = tensor;
  message->is_send = is_send;
  message->peer = peer;
  message->tag = tag;
  message->moved = 0;
  message->arrived_bytes = tensor.nbytes();
  message->state.store(ShmMessage::kPending, std::memory_order_relaxed);
  return message;
}

void ShmMessages::put_message(ShmMessage* message) {
  message->tensor.reset();
  const std::lock_guard lock(free_mutex_);
  free_.push_back(message);
}

MessageHandle ShmMessages::isend(const at::Tensor& tensor, int dst, int tag) {
  group_->monitor().check();
  const uint64_t bytes = tensor.nbytes();
  ShmRecord record{bytes <= kEagerBytes ? ShmRecord::kEager : ShmRecord::kOffer, static_cast<uint32_t>(tag), bytes};
  MessageHandle handle;
  {
    const std::lock_guard lock(mutex_);
    Peer& peer = *peers_[static_cast<size_t>(dst)];
    if (record.kind == ShmRecord::kEager) {
      if (peer.outgoing.empty() && write(dst, record, tensor.const_data_ptr(), bytes)) {
        return handle;
      }
      ShmMessage* message = take_message(tensor, true, dst, tag);
      handle = MessageHandle(message);
      message->retain();
      peer.outgoing.push_back({record, message});
    } else {
      ShmMessage* message = take_message(tensor, true, dst, tag);
      handle = MessageHandle(message);
      record.id = message->id = next_id_++;
      message->retain();
      peer.offered.emplace(record.id, message);
      write_or_keep(dst, record);
    }
    start_thread();
    send_kept(dst);
  }
  return handle;
}

MessageHandle ShmMessages::irecv(const at::Tensor& out, int src, int tag) {
  group_->monitor().check();
  MessageHandle handle;
  {
    const std::lock_guard lock(mutex_);
    Peer& peer = *peers_[static_cast<size_t>(src)];
    ShmMessage* message = take_message(out, false, src, tag);
    handle = MessageHandle(message);
    auto& arrived = peer.arrived[bucket(tag)];
    for (auto it = arrived.begin(); it != arrived.end(); ++it) {
      if (it->tag == tag) {
        message->arrived_bytes = it->bytes;
        if (it->data == nullptr && it->bytes == out.nbytes() && it->bytes > 0) {
          message->retain();
          ask(message, it->id);
        } else {
          if (it->bytes == out.nbytes() && it->bytes > 0) {
            std::memcpy(out.mutable_data_ptr(), it->data.get(), it->bytes);
          }
          message->state.store(ShmMessage::kDone, std::memory_order_release);
        }
        arrived.erase(it);
        return handle;
      }
    }
    message->retain();
    peer.posted[bucket(tag)].push(message);
    if (out.nbytes() > kEagerBytes) {
      start_thread();
    }
  }
  return handle;
}

void ShmMessages::look() {
  const std::lock_guard lock(mutex_);
  look_at_all();
}

void ShmMessages::wait(ShmMessage& message) {
  if (!message.is_done()) {
    ShmRank& own = group_->member(group_->rank());
    own.waiting.store(1, std::memory_order_seq_cst);
    group_->wait(
        own.bell, message.is_send ? "send" : "receive",
        [&] {
          if (!message.is_done()) {
            look();
          }
          return message.is_done();
        },
        [&](int r) { return r == message.peer; });
    own.waiting.store(0, std::memory_order_seq_cst);
    // Who came until now saw that somebody looks, and woke nobody.
    if (thread_.joinable()) {
      look();
    }
  }
  if (!message.is_send && message.arrived_bytes != message.tensor.nbytes()) {
    throw_internal(
        "message from rank {} to rank {} (tag {}) has {} bytes, its receive {}", group_->world_rank(message.peer),
        group_->world_rank(group_->rank()), message.tag, message.arrived_bytes, message.tensor.nbytes());
  }
}

void ShmMessages::flush() {
  ShmRank& own = group_->member(group_->rank());
  own.waiting.store(1, std::memory_order_seq_cst);
  group_->wait(
      own.bell, "flush",
      [&] {
        look();
        const std::lock_guard lock(mutex_);
        return idle();
      },
      [&](int r) {
        const std::lock_guard lock(mutex_);
        return peers_[static_cast<size_t>(r)]->sending();
      });
  own.waiting.store(0, std::memory_order_seq_cst);
}

bool ShmMessages::idle() const {
  for (const std::unique_ptr<Peer>& peer : peers_) {
    if (peer && peer->sending()) {
      return false;
    }
  }
  return true;
}

void ShmMessages::look_at_all() {
  for (int peer = 0; peer < group_->size(); ++peer) {
    if (peer == group_->rank()) {
      continue;
    }
    receive(peer);
    const Peer& its = *peers_[static_cast<size_t>(peer)];
    if (!its.outgoing.empty() || !its.in_parts.empty()) {
      send_kept(peer);
    }
  }
}

void ShmMessages::receive(int src) {
  Peer& peer = *peers_[static_cast<size_t>(src)];
  ShmRecord record;
  const char* data = nullptr;
  bool room = false;
  while (peer.reader.front(record, data)) {
    const bool carries = record.kind == ShmRecord::kEager || record.kind == ShmRecord::kBytes;
    arrive(src, record, data);
    room = peer.reader.pop(carries ? record.bytes : 0) || room;
  }
  if (room) {
    tell(src, true);
  }
}

void ShmMessages::arrive(int src, const ShmRecord& record, const char* data) {
  Peer& peer = *peers_[static_cast<size_t>(src)];
  const int tag = static_cast<int>(record.tag);
  switch (record.kind) {
    case ShmRecord::kEager:
    case ShmRecord::kOffer: {
      const bool small = record.kind == ShmRecord::kEager;
      ShmMessage* message = peer.posted[bucket(tag)].take(tag);
      if (message == nullptr) {
        ShmArrival arrival{tag, record.bytes, nullptr, record.id};
        if (small && record.bytes > 0) {
          arrival.data = std::make_unique_for_overwrite<char[]>(record.bytes);
          std::memcpy(arrival.data.get(), data, record.bytes);
        }
        peer.arrived[bucket(tag)].push_back(std::move(arrival));
        return;
      }
      message->arrived_bytes = record.bytes;
      if (record.bytes != message->tensor.nbytes()) {
        complete(message);  // wait() says what is wrong
      } else if (small) {
        if (record.bytes > 0) {
          std::memcpy(message->tensor.mutable_data_ptr(), data, record.bytes);
        }
        complete(message);
      } else {
        ask(message, record.id);
      }
      return;
    }
    case ShmRecord::kAsk: {
      const auto found = peer.offered.find(record.id);
      if (found != peer.offered.end()) {
        peer.in_parts.push(found->second);  // with the reference
        peer.offered.erase(found);
      }
      return;
    }
    case ShmRecord::kBytes: {
      const auto found = peer.asked.find(record.id);
      if (found == peer.asked.end()) {
        return;
      }
      ShmMessage* message = found->second;
      std::memcpy(static_cast<char*>(message->tensor.mutable_data_ptr()) + record.offset, data, record.bytes);
      message->moved += record.bytes;
      if (message->moved == message->tensor.nbytes()) {
        peer.asked.erase(found);
        complete(message);
      }
      return;
    }
    case ShmRecord::kSkip:
      return;
  }
}

void ShmMessages::ask(ShmMessage* message, uint64_t id) {
  peers_[static_cast<size_t>(message->peer)]->asked.emplace(id, message);
  write_or_keep(message->peer, {.kind = ShmRecord::kAsk, .id = id});
}

/// Takes the reference that the queue held.
void ShmMessages::complete(ShmMessage* message) {
  if (message->is_send) {
    message->tensor.reset();  // whoever kept the handle need not keep the memory
  }
  message->state.store(ShmMessage::kDone, std::memory_order_release);
  message->release();
}

bool ShmMessages::write(int dst, const ShmRecord& record, const void* data, uint64_t bytes) {
  if (!peers_[static_cast<size_t>(dst)]->writer.write(record, data, bytes)) {
    return false;
  }
  tell(dst, record.kind != ShmRecord::kEager);
  return true;
}

void ShmMessages::write_or_keep(int dst, const ShmRecord& record) {
  Peer& peer = *peers_[static_cast<size_t>(dst)];
  if (!peer.outgoing.empty() || !write(dst, record, nullptr, 0)) {
    peer.outgoing.push_back({record, nullptr});
  }
}

void ShmMessages::send_kept(int dst) {
  Peer& peer = *peers_[static_cast<size_t>(dst)];
  while (true) {
    bool full = false;
    while (!peer.outgoing.empty() && !full) {
      const Outgoing& next = peer.outgoing.front();
      ShmMessage* message = next.message;
      full = !write(
          dst, next.record, message == nullptr ? nullptr : message->tensor.const_data_ptr(),
          message == nullptr ? 0 : next.record.bytes);
      if (!full) {
        peer.outgoing.pop_front();
        if (message != nullptr) {
          complete(message);
        }
      }
    }
    while (!peer.in_parts.empty() && !full) {
      ShmMessage* message = peer.in_parts.front();
      const uint64_t total = message->tensor.nbytes();
      const uint64_t bytes = std::min(total - message->moved, kPartBytes);
      full = !write(
          dst, {.kind = ShmRecord::kBytes, .bytes = bytes, .id = message->id, .offset = message->moved},
          static_cast<const char*>(message->tensor.const_data_ptr()) + message->moved, bytes);
      if (!full) {
        message->moved += bytes;
        if (message->moved == total) {
          peer.in_parts.pop();
          complete(message);
        }
      }
    }
    if (!full || peer.writer.await_room(kPartBytes)) {
      return;
    }
  }
}

/// Wakes a rank that sleeps in wait for messages; for what is `large` its communication thread while it computes.
void ShmMessages::tell(int peer, bool large) {
  ShmRank& other = group_->member(peer);
  other.bell.raise_for_sleepers();
  if (large && other.waiting.load(std::memory_order_seq_cst) == 0) {
    other.comm_bell.raise();
  }
}

void ShmMessages::start_thread() {
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { thread_loop(); });
  }
}

void ShmMessages::thread_loop() {
  ShmRank& own = group_->member(group_->rank());
  while (!stop_) {
    const uint32_t seen = own.comm_bell.value();
    look();
    own.bell.raise_for_sleepers();  // what it waits for may be there now
    constexpr int kLimitMs = 1000;
    own.comm_bell.sleep([&] { return stop_ || own.comm_bell.value() != seen; }, kLimitMs);
  }
}

}  // namespace shardpipe::comm
