// checkpoint/header.h: the header of a safetensors file.
#include "checkpoint/header.h"

#include <cstring>

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  const fuzz::MemoryLimit limit(size, 32, 16 << 10);
  fuzz::reads([&] {
    const checkpoint::Header header = checkpoint::parse_header(fuzz::bytes_of(data, size), "input");
    uint64_t length = 0;
    std::memcpy(&length, data, sizeof(length));
    uint64_t end = sizeof(length) + length;
    for (const checkpoint::HeaderTensor& tensor : header.tensors) {
      fuzz::require(tensor.dtype != nullptr && tensor.shape.size() <= checkpoint::kMaxDims, "an impossible tensor");
      fuzz::require(tensor.offset_bytes <= size && tensor.size_bytes <= size - tensor.offset_bytes, "a tensor outside");
      end += tensor.size_bytes;
    }
    fuzz::require(end == size, "bytes that no tensor owns");
  });
  return 0;
}
