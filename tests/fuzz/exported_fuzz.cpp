// The documents of a .pt2 file: the zip archive and the JSON in it.
#include "base/json.h"
#include "checkpoint/zip.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  const fuzz::InputFile input(fuzz::text_of(data, size));
  const fuzz::MemoryLimit limit(size, 64, 16 << 10);
  fuzz::reads([&] {
    const auto archive = checkpoint::ZipFile::open(input.path());
    for (const checkpoint::ZipEntry& entry : archive->entries()) {
      if (entry.name.ends_with(".json")) {
        const std::string_view name = entry.name.substr(archive->root().size());
        fuzz::reads([&] { parse_sorted_json(archive->text(name), "input"); });
      }
    }
  });
  return 0;
}
