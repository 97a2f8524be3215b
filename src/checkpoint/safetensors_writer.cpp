#include "checkpoint/safetensors_writer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/atomic_file.h"
#include "checkpoint/scalar_type.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

constexpr size_t kHeaderAlignment = 8;

// A JSON string.
std::string json_text(const std::string& text, const std::filesystem::path& path) {
  try {
    return Json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw_usage("cannot write {} to {}: it is not UTF-8", in_quotes(text), path.string());
  }
}

const ElementFormat& check_tensor(
    const std::string& name, const at::Tensor& tensor, const std::filesystem::path& path) {
  const auto refuse = [&](const std::string& why) {
    throw_usage("cannot write tensor {} to {}: {}", in_quotes(name), path.string(), why);
  };
  if (name == "__metadata__") {
    refuse("the name is taken by the format");
  }
  if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.is_meta()) {
    refuse(!tensor.defined() ? "it is undefined" : tensor.is_meta() ? "it has no data" : "it is not a dense tensor");
  }
  const ElementFormat* dtype = find_format(to_element_type(tensor.scalar_type()));
  if (dtype == nullptr || dtype->safetensors.empty()) {
    refuse(fmt::format("safetensors has no dtype {}", c10::toString(tensor.scalar_type())));
  }
  if (dtype->type == ElementType::float4_e2m1fn_x2 && tensor.dim() == 0) {
    refuse("a packed F4 tensor needs a dimension");
  }
  return *dtype;
}

std::vector<int64_t> file_shape(const at::Tensor& tensor) {
  std::vector<int64_t> shape = tensor.sizes().vec();
  if (tensor.scalar_type() == c10::ScalarType::Float4_e2m1fn_x2) {
    shape.back() *= 2;
  }
  return shape;
}

}  // namespace

void write_safetensors(
    const std::filesystem::path& path,
    const std::vector<std::pair<std::string, at::Tensor>>& tensors,
    const std::map<std::string, std::string>& metadata) {
  std::vector<const ElementFormat*> dtypes;
  std::unordered_set<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    dtypes.push_back(&check_tensor(name, tensor, path));
    if (!names.insert(name).second) {
      throw_usage("cannot write tensor {} to {}: the name is given twice", in_quotes(name), path.string());
    }
  }
  std::vector<size_t> layout(tensors.size());
  std::iota(layout.begin(), layout.end(), size_t{0});
  std::stable_sort(layout.begin(), layout.end(), [&](size_t a, size_t b) {
    return tensors[a].second.element_size() > tensors[b].second.element_size();
  });
  std::vector<uint64_t> begins(tensors.size());
  uint64_t end = 0;
  for (const size_t i : layout) {
    begins[i] = end;
    end += tensors[i].second.nbytes();
  }

  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      header += json_text(key, path) + ":" + json_text(value, path) + ",";
    }
    header.back() = '}';
    header += ",";
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i].second;
    header += fmt::format(
        R"({}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}},)", json_text(tensors[i].first, path),
        dtypes[i]->safetensors, shape_text(file_shape(tensor)), begins[i], begins[i] + tensor.nbytes());
  }
  if (header.back() == ',') {
    header.pop_back();
  }
  header += "}";
  header.resize((header.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');

  AtomicFile file(path);
  const uint64_t length = header.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(header)));
  for (const size_t i : layout) {
    const at::Tensor data = tensors[i].second.resolve_conj().resolve_neg().cpu().contiguous();
    file.write({static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()});
  }
  file.commit();
}

}  // namespace shardpipe::checkpoint
