// checkpoint/zip.h: the container of .pt2, .pt and .bin files.
#include "checkpoint/zip.h"

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  const fuzz::InputFile input(fuzz::text_of(data, size));
  const fuzz::MemoryLimit limit(size, 8, 16 << 10);
  fuzz::reads([&] {
    const auto archive = checkpoint::ZipFile::open(input.path());
    uint64_t sum = 0;
    for (const checkpoint::ZipEntry& entry : archive->entries()) {
      const auto* found = archive->find(entry.name.substr(archive->root().size()));
      fuzz::require(found == &entry, "a record is not found by its name");
      fuzz::reads([&] {
        for (const std::byte byte : archive->bytes(entry)) {
          sum += std::to_integer<uint64_t>(byte);
        }
      });
    }
    volatile uint64_t used = sum;
    (void)used;
  });
  return 0;
}
