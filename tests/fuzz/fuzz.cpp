#include "fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

// ASAN's, of <sanitizer/allocator_interface.h>, which gcc does not install.
extern "C" int __sanitizer_install_malloc_and_free_hooks(
    void (*on_malloc)(const volatile void*, size_t), void (*on_free)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* pointer);

namespace shardpipe::fuzz {
namespace {

constexpr int64_t kNoLimit = INT64_MAX;
std::atomic<int64_t> live_bytes = 0;
std::atomic<int64_t> limit_bytes = kNoLimit;

void on_malloc(const volatile void*, size_t size) {
  const int64_t limit = limit_bytes;
  if (limit != kNoLimit && (live_bytes += static_cast<int64_t>(size)) > limit) {
    limit_bytes = kNoLimit;
    std::fprintf(
        stderr, "the input makes its reader hold %lld bytes; the limit is %lld\n",
        static_cast<long long>(live_bytes.load()), static_cast<long long>(limit));
    std::abort();
  }
}

void on_free(const volatile void* pointer) {
  if (pointer != nullptr && limit_bytes != kNoLimit) {
    live_bytes -= static_cast<int64_t>(__sanitizer_get_allocated_size(pointer));
  }
}

}  // namespace

MemoryLimit::MemoryLimit(size_t input_bytes, size_t factor, size_t base) {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
  require(installed != 0, "no room for the allocator's hooks");
  live_bytes = 0;
  limit_bytes = static_cast<int64_t>(base + factor * input_bytes);
}

MemoryLimit::~MemoryLimit() {
  limit_bytes = kNoLimit;
}

InputFile::InputFile(std::string_view content) : descriptor_(::memfd_create("input", MFD_CLOEXEC)) {
  require(descriptor_ >= 0, "memfd_create failed");
  const ssize_t written = ::write(descriptor_, content.data(), content.size());
  require(written == static_cast<ssize_t>(content.size()), "the input cannot be written");
}

InputFile::~InputFile() {
  ::close(descriptor_);
}

std::filesystem::path InputFile::path() const {
  return "/proc/self/fd/" + std::to_string(descriptor_);
}

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
}

}  // namespace shardpipe::fuzz
