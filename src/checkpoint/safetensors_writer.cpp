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

[[noreturn]] void refuse(const std::string& name, const std::filesystem::path& path, const std::string& why) {
  throw_usage("cannot write tensor {} to {}: {}", in_quotes(name), path.string(), why);
}

void check_tensor(const std::string& name, const at::Tensor& tensor, const std::filesystem::path& path) {
  if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.is_meta()) {
    refuse(
        name, path,
        !tensor.defined()  ? "it is undefined"
        : tensor.is_meta() ? "it has no data"
                           : "it is not a dense tensor");
  }
}

const ElementFormat& find_dtype(const LaterTensor& tensor, const std::filesystem::path& path) {
  if (tensor.name == "__metadata__") {
    refuse(tensor.name, path, "the name is taken by the format");
  }
  const ElementFormat* dtype = find_format(to_element_type(tensor.dtype));
  if (dtype == nullptr || dtype->safetensors.empty()) {
    refuse(tensor.name, path, fmt::format("safetensors has no dtype {}", c10::toString(tensor.dtype)));
  }
  if (dtype->type == ElementType::float4_e2m1fn_x2 && tensor.shape.empty()) {
    refuse(tensor.name, path, "a packed F4 tensor needs a dimension");
  }
  return *dtype;
}

std::vector<int64_t> file_shape(const LaterTensor& tensor) {
  std::vector<int64_t> shape = tensor.shape;
  if (tensor.dtype == c10::ScalarType::Float4_e2m1fn_x2) {
    shape.back() *= 2;
  }
  return shape;
}

uint64_t size_bytes(const LaterTensor& tensor) {
  return c10::multiply_integers(tensor.shape) * c10::elementSize(tensor.dtype);
}

std::string header_text(
    const std::vector<LaterTensor>& tensors,
    const std::vector<uint64_t>& begins,
    const std::map<std::string, std::string>& metadata,
    const std::filesystem::path& path) {
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      header += json_text(key, path) + ":" + json_text(value, path) + ",";
    }
    header.back() = '}';
    header += ",";
  }
  std::unordered_set<std::string> names;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const LaterTensor& tensor = tensors[i];
    const ElementFormat& dtype = find_dtype(tensor, path);
    if (!names.insert(tensor.name).second) {
      refuse(tensor.name, path, "the name is given twice");
    }
    header += fmt::format(
        R"({}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}},)", json_text(tensor.name, path), dtype.safetensors,
        shape_text(file_shape(tensor)), begins[i], begins[i] + size_bytes(tensor));
  }
  if (header.back() == ',') {
    header.pop_back();
  }
  return header + "}";
}

// `order`: of the data in the file, without gaps.
void write(
    const std::filesystem::path& path,
    const std::string& header,
    const std::vector<LaterTensor>& tensors,
    const std::vector<size_t>& order) {
  AtomicFile file(path);
  const uint64_t length = header.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(header)));
  for (const size_t i : order) {
    const LaterTensor& tensor = tensors[i];
    const at::Tensor made = tensor.make();
    check_tensor(tensor.name, made, path);
    if (made.scalar_type() != tensor.dtype || made.sizes() != at::IntArrayRef(tensor.shape)) {
      throw_internal(
          "the tensor {} for {} is {}{}, announced as {}{}", in_quotes(tensor.name), path.string(),
          c10::toString(made.scalar_type()), c10::str(made.sizes()), c10::toString(tensor.dtype),
          shape_text(tensor.shape));
    }
    const at::Tensor data = made.resolve_conj().resolve_neg().cpu().contiguous();
    file.write({static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()});
  }
  file.commit();
}

size_t round_up(size_t size, size_t unit) {
  return (size + unit - 1) / unit * unit;
}

}  // namespace

void write_safetensors(
    const std::filesystem::path& path,
    const std::vector<std::pair<std::string, at::Tensor>>& tensors,
    const std::map<std::string, std::string>& metadata) {
  std::vector<LaterTensor> later;
  for (const auto& [name, tensor] : tensors) {
    check_tensor(name, tensor, path);
    later.push_back({name, tensor.scalar_type(), tensor.sizes().vec(), [&tensor = tensor] { return tensor; }});
  }
  std::vector<size_t> order(later.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return c10::elementSize(later[a].dtype) > c10::elementSize(later[b].dtype);
  });
  std::vector<uint64_t> begins(later.size());
  uint64_t end = 0;
  for (const size_t i : order) {
    begins[i] = end;
    end += size_bytes(later[i]);
  }
  std::string header = header_text(later, begins, metadata, path);
  header.resize(round_up(header.size(), kHeaderAlignment), ' ');
  write(path, header, later, order);
}

void write_placed(
    const std::filesystem::path& path,
    const std::vector<LaterTensor>& tensors,
    const std::map<std::string, std::string>& metadata) {
  // Those that keep the place of what follows come first, so that few gaps are to be filled.
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto key = [&](size_t i) { return std::pair(size_bytes(tensors[i]) % kPlaceUnit != 0, tensors[i].place); };
    return key(a) < key(b);
  });
  std::vector<LaterTensor> placed;
  std::vector<uint64_t> begins;
  uint64_t end = 0;  // of the data, which begins at a multiple of kPlaceUnit
  for (const size_t i : order) {
    if (const size_t gap = (tensors[i].place + kPlaceUnit - end % kPlaceUnit) % kPlaceUnit; gap > 0) {
      const auto bytes = static_cast<int64_t>(gap);
      placed.push_back({fmt::format("{}{}", kGapPrefix, placed.size()), at::kByte, {bytes}, [bytes] {
                          return at::zeros({bytes}, at::kByte);
                        }});
      begins.push_back(end);
      end += gap;
    }
    placed.push_back(tensors[i]);
    begins.push_back(end);
    end += size_bytes(tensors[i]);
  }
  std::string header = header_text(placed, begins, metadata, path);
  header.resize(round_up(sizeof(uint64_t) + header.size(), kPlaceUnit) - sizeof(uint64_t), ' ');
  std::vector<size_t> in_order(placed.size());
  std::iota(in_order.begin(), in_order.end(), size_t{0});
  write(path, header, placed, in_order);
}

}  // namespace shardpipe::checkpoint
