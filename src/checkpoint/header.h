#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/element_type.h"

namespace shardpipe::checkpoint {

/// What a header says of one tensor.
struct HeaderTensor {
  std::string name;
  const ElementFormat* dtype = nullptr;  ///< never null in a Header
  std::vector<int64_t> shape;            ///< as in the file: of F4 tensors twice torch's last extent
  uint64_t offset_bytes = 0;             ///< from the start of the file
  uint64_t size_bytes = 0;
};

struct Header {
  std::vector<HeaderTensor> tensors;  ///< in the order of the header's text
  std::map<std::string, std::string> metadata;
};

/// Limit of the reference implementation on the header's length.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
/// Limit of PyTorch's operators on dimensions.
inline constexpr size_t kMaxDims = 64;

/// Parses and checks the header of a safetensors file of any origin: 8 bytes little-endian length, a JSON object
/// {name: {"dtype", "shape", "data_offsets": [begin, end)}, "__metadata__": {string: string}}, the tensors' bytes.
/// Accepts what the `safetensors` package accepts, but for: a name given twice, a tensor described by a list or a dtype
/// by an object (serde's other spellings), more than kMaxDims dimensions, extents above 2^63 - 1.
/// Throws Error(input) naming `path`, the tensor, the limit and the actual value. Reads nothing behind the header.
Header parse_header(std::span<const std::byte> file, const std::filesystem::path& path);

}  // namespace shardpipe::checkpoint
