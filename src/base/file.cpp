#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace shardpipe {
namespace {

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) {
      ::close(fd);
    }
  }
};

// Opens a regular file for reading and returns its size; a folder, pipe or device is refused.
size_t open_regular(const std::filesystem::path& path, Descriptor& file) {
  file.fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.fd < 0) {
    throw_input("cannot open {}: {}", path.string(), std::strerror(errno));
  }
  struct stat status {};
  if (::fstat(file.fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    throw_input("cannot read {}: not a regular file", path.string());
  }
  return static_cast<size_t>(status.st_size);
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  Descriptor file;
  std::string content(open_regular(path, file), '\0');
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = ::read(file.fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      throw_input("cannot read {}: {}", path.string(), n < 0 ? std::strerror(errno) : "it became shorter while read");
    }
    done += static_cast<size_t>(n);
  }
  return content;
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  std::string temporary = path.string() + ".tmp-XXXXXX";
  Descriptor file;
  file.fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  const auto fail = [&](const char* what) {
    const int error = errno;
    ::unlink(temporary.c_str());
    throw Error(ErrorCode::io, fmt::format("cannot {} {}: {}", what, path.string(), std::strerror(error)));
  };
  if (file.fd < 0) {
    fail("create");
  }
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = ::write(file.fd, content.data() + done, content.size() - done);
    if (n < 0 && errno != EINTR) {
      fail("write");
    }
    done += n > 0 ? static_cast<size_t>(n) : 0;
  }
  if (::fchmod(file.fd, 0644) != 0 || ::fsync(file.fd) != 0) {
    fail("write");
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    fail("rename to");
  }
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path, Access access) {
  Descriptor file;
  const size_t size = open_regular(path, file);
  void* data = nullptr;
  if (size > 0) {
    const bool writable = access == Access::copy_on_write;
    // Without a reservation of swap: a file larger than memory is written to in a few places only.
    data = ::mmap(
        nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
        writable ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED, file.fd, 0);
    if (data == MAP_FAILED) {
      throw_input("cannot map {}: {}", path.string(), std::strerror(errno));
    }
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

}  // namespace shardpipe
