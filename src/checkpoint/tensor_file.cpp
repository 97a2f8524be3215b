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

}  // namespace shardpipe::checkpoint
