#include "comm/shm_segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace shardpipe::comm {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

}  // namespace

ShmSegment::ShmSegment(ShmSegment&& other) noexcept
    : fd_(std::move(other.fd_)), data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

ShmSegment& ShmSegment::operator=(ShmSegment&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ShmSegment::~ShmSegment() {
  if (data_ != nullptr) {
    ::munmap(data_, bytes_);
  }
}

ShmSegment ShmSegment::create(size_t bytes) {
  ShmSegment segment;
  segment.bytes_ = bytes;
#ifdef MFD_NOEXEC_SEAL
  segment.fd_ = Descriptor(::memfd_create("shardpipe", MFD_CLOEXEC | MFD_NOEXEC_SEAL));
#endif
  if (segment.fd_.get() < 0) {
    segment.fd_ = Descriptor(::memfd_create("shardpipe", MFD_CLOEXEC));
  }
  if (segment.fd_.get() < 0) {
    refuse("memfd_create");
  }
  if (::fchmod(segment.fd_.get(), S_IRUSR | S_IWUSR) != 0 ||
      ::ftruncate(segment.fd_.get(), static_cast<off_t>(bytes)) != 0) {
    refuse(fmt::format("a segment of {} bytes", bytes));
  }
  segment.map();
  return segment;
}

ShmSegment ShmSegment::attach(const SegmentName& name) {
  ShmSegment segment;
  segment.bytes_ = name.bytes;
  const std::string path = fmt::format("/proc/{}/fd/{}", name.pid, name.fd);
  // In another process namespace this is some other file, maybe one that would block.
  segment.fd_ = Descriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (segment.fd_.get() < 0) {
    refuse(path);
  }
  struct stat status {};
  if (::fstat(segment.fd_.get(), &status) != 0) {
    refuse(path);
  }
  if (!S_ISREG(status.st_mode) || status.st_dev != name.device || status.st_ino != name.inode ||
      static_cast<size_t>(status.st_size) != name.bytes) {
    throw std::runtime_error(fmt::format("{} is something else here", path));
  }
  segment.map();
  segment.close();
  return segment;
}

void ShmSegment::map() {
  void* address = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (address == MAP_FAILED) {
    refuse(fmt::format("mapping {} bytes", bytes_));
  }
  data_ = static_cast<char*>(address);
}

SegmentName ShmSegment::name() const {
  struct stat status {};
  ::fstat(fd_.get(), &status);
  return {::getpid(), fd_.get(), status.st_dev, status.st_ino, bytes_};
}

namespace {

/// State ('R', 'Z', ...) and start time (clock ticks since the host started) from /proc; 0 and 0 if there is none.
std::pair<char, uint64_t> process_state(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const size_t name_end = text.rfind(')');  // the name may hold spaces and brackets
  if (name_end == std::string::npos) {
    return {0, 0};
  }
  std::istringstream fields(text.substr(name_end + 1));
  char state = 0;
  fields >> state;
  std::string field;
  for (int number = 4; number < 22; ++number) {
    fields >> field;
  }
  uint64_t start_time = 0;
  fields >> start_time;
  return {state, start_time};
}

}  // namespace

ProcessIdentity this_process() {
  return {::getpid(), process_state(::getpid()).second};
}

bool is_alive(const ProcessIdentity& process) {
  const auto [state, start_time] = process_state(process.pid);
  return start_time == process.start_time && state != 'Z' && state != 'X' && state != 0;
}

}  // namespace shardpipe::comm
