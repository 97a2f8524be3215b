#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace shardpipe::checkpoint {

/// The "weight_map" of a sharded checkpoint's index, as Hugging Face writes it.
struct ShardIndex {
  std::vector<std::string> files;         ///< names inside the index's folder, in order of first mention
  std::map<std::string, size_t> tensors;  ///< tensor name -> position in `files`
};

/// Reads model.safetensors.index.json of any origin. Throws Error(input) naming the file when it is not such an index,
/// names a tensor twice, or names a file outside of its folder.
ShardIndex read_shard_index(const std::filesystem::path& path);

}  // namespace shardpipe::checkpoint
