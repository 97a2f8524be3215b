#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/shm_group.h"
#include "comm/shm_message.h"
#include "comm/shm_ring.h"

namespace shardpipe::comm {

/// Messages through shared memory.
///
/// Most are copied into the ring between the two ranks, and with that they have left; the receiver copies them out when
/// it next looks. Of large ones the ring first carries an offer; the receiver asks for them once it has where to put
/// them, and gets them in parts, which both copy at the same time. (To read straight out of the sender's memory, with
/// process_vm_readv, is one copy less, took twice the time, and is forbidden on many systems.)
///
/// Everyone who calls looks what has come. Where a large message needs attention while the compute thread computes, a
/// communication thread, which sleeps otherwise, gives it; it is started with the first large message.
class ShmMessages final : public TransportBackend {
 public:
  /// Messages of more bytes are large.
  static constexpr uint64_t kEagerBytes = ShmRingWriter::kMaxBytes;
  static constexpr uint64_t kPartBytes = 64 * 1024;

  explicit ShmMessages(std::shared_ptr<ShmGroup> group);
  /// After Monitor::end_waits().
  ~ShmMessages() override;

  MessageHandle isend(const at::Tensor& tensor, int dst, int tag) override;
  MessageHandle irecv(const at::Tensor& out, int src, int tag) override;
  /// Returns when everything sent has left. Throws Error(rank).
  void flush();

 private:
  friend class ShmMessage;

  struct Outgoing {
    ShmRecord record;
    ShmMessage* message = nullptr;  ///< with a reference; its bytes follow the record if it is small
  };
  struct Peer {
    explicit Peer(ShmRing& out, ShmRing& in) : writer(out), reader(in) {}
    ShmRingWriter writer;
    ShmRingReader reader;
    std::deque<Outgoing> outgoing;            ///< what did not fit, in order
    ShmQueue in_parts;                        ///< sends whose bytes were asked for
    std::map<uint64_t, ShmMessage*> offered;  ///< large sends by id, each with a reference
    std::map<uint64_t, ShmMessage*> asked;    ///< large receives by id, likewise
    ShmQueue posted[16];                      ///< receives by tag
    std::deque<ShmArrival> arrived[16];

    bool sending() const { return !outgoing.empty() || !offered.empty() || !in_parts.empty(); }
  };
  static constexpr size_t kBuckets = 16;
  static size_t bucket(int tag) { return static_cast<uint32_t>(tag) * 2654435769U >> 28; }

  ShmMessage* take_message(const at::Tensor& tensor, bool is_send, int peer, int tag);
  void put_message(ShmMessage* message);
  void wait(ShmMessage& message);
  void look();

  // With the lock held:
  void look_at_all();
  void receive(int src);
  bool write(int dst, const ShmRecord& record, const void* data, uint64_t bytes);
  void write_or_keep(int dst, const ShmRecord& record);
  void send_kept(int dst);
  void arrive(int src, const ShmRecord& record, const char* data);
  void ask(ShmMessage* message, uint64_t id);
  void complete(ShmMessage* message);
  bool idle() const;

  void tell(int peer, bool large);
  void start_thread();
  void thread_loop();

  std::shared_ptr<ShmGroup> group_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Peer>> peers_;  ///< none for this rank itself
  uint64_t next_id_ = 1;
  std::mutex free_mutex_;
  std::vector<ShmMessage*> free_;
  std::thread thread_;
  std::atomic<bool> stop_{false};
};

}  // namespace shardpipe::comm
