#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "comm/socket.h"

namespace shardpipe::comm {

/// How another process of this host finds a segment: as long as its maker holds it open, and it has no other name, so
/// that nothing is left of it whenever and however many processes die.
struct SegmentName {
  pid_t pid = 0;  ///< the maker's
  int fd = -1;    ///< the maker's descriptor of it
  uint64_t device = 0;
  uint64_t inode = 0;
  size_t bytes = 0;
};

/// Memory that several processes of one user map (a memfd: no file in any folder, mode 0600). Zero at first; a page
/// takes memory once it is touched.
class ShmSegment {
 public:
  ShmSegment() = default;
  ShmSegment(ShmSegment&& other) noexcept;
  ShmSegment& operator=(ShmSegment&& other) noexcept;
  ~ShmSegment();

  /// Throws std::runtime_error saying why the system refuses.
  static ShmSegment create(size_t bytes);
  /// Maps a segment that another process (or this one) made. Throws std::runtime_error saying why that cannot be: most
  /// often because the maker is in another container.
  static ShmSegment attach(const SegmentName& name);

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  SegmentName name() const;
  /// Nobody can attach any more; who has, keeps it.
  void close() { fd_ = Descriptor(); }

 private:
  void map();
  Descriptor fd_;
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

/// A process as others of the same host see it: numbers of processes are used again, start times are not.
struct ProcessIdentity {
  pid_t pid = 0;
  uint64_t start_time = 0;
};
ProcessIdentity this_process();
/// False once the process has ended, also while its parent has not waited for it yet.
bool is_alive(const ProcessIdentity& process);

}  // namespace shardpipe::comm
