// checkpoint/pickle.h: the pickle of torch.save.
#include "checkpoint/pickle.h"

#include "fuzz/pickles.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  // A value of 16 bytes for an opcode of one, on the stack and in a container.
  const fuzz::MemoryLimit limit(size, 128, 16 << 10);
  fuzz::reads([&] {
    const checkpoint::Pickle pickle = checkpoint::parse_pickle(fuzz::bytes_of(data, size), "input");
    fuzz::walk(pickle, pickle.root());
  });
  return 0;
}
