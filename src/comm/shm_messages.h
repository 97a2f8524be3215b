#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "comm/shm_group.h"
#include "comm/shm_message.h"
#include "comm/shm_ring.h"

namespace shardpipe::comm {

/// Messages through shared memory.
///
/// Small ones are copied into the ring between the two ranks, and with that they have left; the receiver copies them
/// out when it next looks. Of large ones the ring carries an offer: the receiver reads them straight out of the
/// sender's memory (one copy), or, where the system forbids that, asks for them and gets them through the ring in
/// parts.
///
/// Everyone who calls looks what has come. Where a large message needs attention while the compute thread computes, a
/// communication thread, which sleeps otherwise, gives it; it is started with the first large message.
class ShmMessages final : public TransportBackend {
 public:
  /// Messages of more bytes are large.
  static constexpr uint64_t kEagerBytes = 16 * 1024;

  explicit ShmMessages(std::shared_ptr<ShmGroup> group);
  /// After Monitor::end_waits().
  ~ShmMessages() override;

  MessageHandle isend(const at::Tensor& tensor, int dst, int tag) override;
  MessageHandle irecv(const at::Tensor& out, int src, int tag) override;
  /// Returns when everything sent has left. Throws Error(rank).
  void flush();

  /// Large messages go in parts even where the receiver may read the sender's memory: for tests.
  void forbid_reading() { may_read_.assign(may_read_.size(), kNo); }

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
    std::map<uint64_t, ShmMessage*> offered;  ///< large sends by id, with a reference
    std::map<uint64_t, ShmMessage*> asked;    ///< large receives that come in parts, with a reference
    ShmQueue posted[16];                      ///< receives by tag
    std::deque<ShmArrival> arrived[16];
  };
  static constexpr size_t kBuckets = 16;
  static size_t bucket(int tag) { return static_cast<uint32_t>(tag) * 2654435769U >> 28; }

  /// A large message to be read from the sender.
  struct Read {
    ShmMessage* message = nullptr;
    ShmRecord record;
  };

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
  void take_large(ShmMessage* message, const ShmRecord& record);
  void complete(ShmMessage* message);
  bool idle() const;

  /// Without it: reads what was offered, on whichever thread comes first.
  void read_offered();
  bool read_from(const Read& read);
  void tell(int peer, bool large);
  void start_thread();
  void thread_loop();

  std::shared_ptr<ShmGroup> group_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Peer>> peers_;  ///< none for this rank itself
  std::deque<Read> reads_;
  std::atomic<bool> has_reads_{false};
  enum : char { kUnknown, kYes, kNo };
  std::vector<char> may_read_;  ///< each rank's memory
  uint64_t next_id_ = 1;
  std::mutex free_mutex_;
  std::vector<ShmMessage*> free_;
  std::thread thread_;
  std::atomic<bool> stop_{false};
};

}  // namespace shardpipe::comm
