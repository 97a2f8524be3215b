// A .pt or .bin file: the zip archive, its data.pkl, and the records that its tensors name.
#include "checkpoint/zip.h"

#include "fuzz/pickles.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  const fuzz::InputFile input(fuzz::text_of(data, size));
  const fuzz::MemoryLimit limit(size, 128, 16 << 10);
  fuzz::reads([&] {
    const auto archive = checkpoint::ZipFile::open(input.path());
    const checkpoint::Pickle pickle = checkpoint::parse_pickle(archive->bytes("data.pkl"), "input");
    fuzz::walk(pickle, pickle.root());
  });
  return 0;
}
