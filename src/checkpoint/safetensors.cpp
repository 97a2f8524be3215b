#include "checkpoint/safetensors.h"

#include <ATen/ATen.h>

#include <cstring>

#include "base/error.h"
#include "checkpoint/header.h"
#include "checkpoint/scalar_type.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

// Shape of the torch tensor: F4 holds two elements in one of torch's.
std::vector<int64_t> torch_shape(const TensorInfo& info, const std::string& where) {
  std::vector<int64_t> shape = info.shape;
  if (info.dtype == c10::ScalarType::Float4_e2m1fn_x2) {
    if (shape.empty() || shape.back() % 2 != 0) {
      throw_input(
          "tensor {} in {}: dtype F4 needs an even last extent in torch, its shape is {}", in_quotes(info.name), where,
          shape_text(info.shape));
    }
    shape.back() /= 2;
  }
  return shape;
}

// `view` (row-major, on bytes that may lie anywhere) as a tensor of `dtype`, its last dimension being an element's
// bytes.
at::Tensor aligned_copy(const at::Tensor& view, c10::ScalarType dtype) {
  at::Tensor bytes = at::empty(view.sizes(), view.options());  // torch's allocator aligns
  bytes.copy_(view);
  return bytes.view(dtype).squeeze(-1);
}

at::Tensor valid_booleans(const at::Tensor& tensor) {
  const at::Tensor bytes = tensor.view(at::kByte);
  return bytes.numel() > 0 && bytes.max().item<int64_t>() > 1 ? bytes.ne(0) : tensor;
}

}  // namespace

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->mapping_ = MappedFile::open(path);
  Header header = parse_header(file->mapping_->bytes(), path);
  file->metadata_ = std::move(header.metadata);
  file->infos_.reserve(header.tensors.size());
  file->index_.reserve(header.tensors.size());
  for (HeaderTensor& tensor : header.tensors) {
    file->infos_.push_back(
        {std::move(tensor.name), to_scalar_type(tensor.dtype->type), tensor.dtype->safetensors, std::move(tensor.shape),
         tensor.offset_bytes, tensor.size_bytes});
  }
  for (size_t i = 0; i < file->infos_.size(); ++i) {
    file->index_.emplace(file->infos_[i].name, i);
  }
  return file;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &infos_[found->second];
}

// The tensor over the mapping: of `info.dtype`, or of bytes with an element's bytes as last dimension when the data is
// not aligned.
at::Tensor SafetensorsFile::map(const TensorInfo& info) const {
  const std::string where = path().string();
  if (info.dtype == c10::ScalarType::Undefined) {
    throw_input(
        "tensor {} in {} has dtype {}, which torch does not have", in_quotes(info.name), where, info.dtype_name);
  }
  std::vector<int64_t> shape = torch_shape(info, where);
  if (info.size_bytes == 0) {
    return at::empty({0}, at::TensorOptions().dtype(info.dtype)).view(shape);  // [0, 2^62, 8] has no product
  }
  const size_t element_bytes = c10::elementSize(info.dtype);
  c10::ScalarType dtype = info.dtype;
  if (info.offset_bytes % element_bytes != 0) {
    dtype = at::kByte;
    shape.push_back(static_cast<int64_t>(element_bytes));
  }
  // from_blob takes no const pointer; the pages are mapped read-only.
  auto* data = const_cast<std::byte*>(mapping_->bytes().data() + info.offset_bytes);
  return at::for_blob(data, shape)
      .deleter([mapping = mapping_](void*) {})
      .options(at::TensorOptions().dtype(dtype).device(at::kCPU))
      .target_device(at::kCPU)  // spares the question what kind of pointer this is
      .make_tensor();
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const TensorInfo& described = info(name);
  at::Tensor result = map(described);
  if (result.scalar_type() != described.dtype) {
    return aligned_copy(result, described.dtype);
  }
  return described.dtype == at::kBool ? valid_booleans(result) : result;
}

at::Tensor SafetensorsFile::tensor(std::string_view name, c10::ScalarType dtype) const {
  const TensorInfo& described = info(name);
  if (described.dtype != dtype) {
    throw_input(
        "tensor {} in {} has dtype {}, it must be {}", in_quotes(name), path().string(), described.dtype_name,
        c10::toString(dtype));
  }
  return tensor(name);
}

at::Tensor SafetensorsFile::slice(std::string_view name, int64_t dim, int64_t start, int64_t length) const {
  const TensorInfo& described = info(name);
  const at::Tensor whole = map(described);
  const bool misaligned = whole.scalar_type() != described.dtype;
  const int64_t dims = whole.dim() - (misaligned ? 1 : 0);
  check_slice(name, whole.sizes().slice(0, static_cast<size_t>(dims)), dim, start, length);
  const at::Tensor part = whole.narrow(dim, start, length);
  if (misaligned) {
    return aligned_copy(part, described.dtype);
  }
  return described.dtype == at::kBool ? valid_booleans(part) : part;
}

}  // namespace shardpipe::checkpoint
