#include "checkpoint/tensor_file.h"

#include "base/error.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {

const TensorInfo& TensorFile::info(std::string_view name) const {
  const TensorInfo* found = find(name);
  if (found == nullptr) {
    std::vector<std::string> names;
    for (const TensorInfo& tensor : tensors()) {
      names.push_back(tensor.name);
    }
    throw_input(
        "no tensor {} in {}; its {} tensors include {}", in_quotes(name), path().string(), names.size(),
        names.empty() ? "none" : list_text(nearest_names(name, names), 3));
  }
  return *found;
}

void TensorFile::check_slice(
    std::string_view name, at::IntArrayRef shape, int64_t dim, int64_t start, int64_t length) const {
  const bool inside = dim >= 0 && dim < static_cast<int64_t>(shape.size()) && start >= 0 && length >= 0 &&
                      start <= shape[static_cast<size_t>(dim)] && length <= shape[static_cast<size_t>(dim)] - start;
  if (!inside) {
    throw_input(
        "cannot take {} rows from row {} of dimension {} of tensor {} in {}: its shape is {}", length, start, dim,
        in_quotes(name), path().string(), shape_text(shape));
  }
}

at::Tensor TensorFile::slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const {
  const at::Tensor whole = tensor(name);
  check_slice(name, whole.sizes(), dim, start, length);
  return whole.narrow(dim, start, length);
}

}  // namespace shardpipe::checkpoint
