#include "shardpipe/tensors.h"

#include "base/error.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_writer.h"
#include "graph/graph.h"

namespace shardpipe {

NamedTensors read_tensors(const std::filesystem::path& path) {
  const auto file = checkpoint::SafetensorsFile::open(path);
  NamedTensors tensors;
  for (const checkpoint::TensorInfo& info : file->tensors()) {
    tensors.emplace_back(info.name, file->tensor(info.name));
  }
  return tensors;
}

void write_tensors(const std::filesystem::path& path, const NamedTensors& tensors) {
  checkpoint::write_safetensors(path, tensors);
}

std::string dtype_name(const at::Tensor& tensor) {
  return graph::dtype_name(tensor.scalar_type());
}

std::vector<std::vector<int64_t>> read_input_ids(const std::filesystem::path& path) {
  const auto file = checkpoint::SafetensorsFile::open(path);
  const at::Tensor ids = file->tensor("input_ids", at::kLong).contiguous();
  if (ids.dim() != 2) {
    throw_input("input_ids in {} has shape {}, must be [rows, length]", path.string(), c10::str(ids.sizes()));
  }
  at::Tensor mask;
  if (file->find("attention_mask") != nullptr) {
    const at::Tensor given = file->tensor("attention_mask");
    if (given.sizes() != ids.sizes()) {
      throw_input(
          "attention_mask in {} has shape {}, input_ids has {}", path.string(), c10::str(given.sizes()),
          c10::str(ids.sizes()));
    }
    mask = given.ne(0).contiguous();
  }
  std::vector<std::vector<int64_t>> rows;
  for (int64_t row = 0; row < ids.size(0); ++row) {
    std::vector<int64_t>& kept = rows.emplace_back();
    for (int64_t i = 0; i < ids.size(1); ++i) {
      const int64_t at = row * ids.size(1) + i;
      if (!mask.defined() || mask.const_data_ptr<bool>()[at]) {
        kept.push_back(ids.const_data_ptr<int64_t>()[at]);
      }
    }
  }
  return rows;
}

}  // namespace shardpipe
