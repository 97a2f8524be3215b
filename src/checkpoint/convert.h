#pragma once

#include <ATen/core/Tensor.h>

#include "base/file.h"

namespace shardpipe::checkpoint {

/// `view`, a tensor over `file` (or a private copy), in the dtype a model runs in: as it is when it already has that
/// dtype or is no real floating-point tensor (integers, booleans and complex numbers keep theirs), else a converted
/// contiguous copy. Converts a block at a time and gives each block's pages back, so that memory holds the copy and not
/// both. Throws Error(input) naming `name` when torch cannot convert (packed F4).
at::Tensor to_run_dtype(const at::Tensor& view, c10::ScalarType dtype, const MappedFile& file, const std::string& name);

}  // namespace shardpipe::checkpoint
