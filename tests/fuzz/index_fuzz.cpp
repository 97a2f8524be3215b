// checkpoint/index.h: model.safetensors.index.json.
#include "checkpoint/index.h"

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  const fuzz::InputFile input(fuzz::text_of(data, size));
  const fuzz::MemoryLimit limit(size, 32, 16 << 10);
  fuzz::reads([&] {
    const checkpoint::ShardIndex index = checkpoint::read_shard_index(input.path());
    for (const std::string& file : index.files) {
      fuzz::require(file.find('/') == std::string::npos && file != "..", "a file outside of the folder");
    }
    for (const auto& [name, position] : index.tensors) {
      fuzz::require(position < index.files.size(), "a tensor in no file");
    }
  });
  return 0;
}
