#include "runtime/bundle.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <bit>

#include "base/error.h"

namespace shardpipe::runtime {
namespace {

constexpr size_t kMaxDimensions = 32;
// A tensor with gaps gets its strides back unless they take this many times its elements.
constexpr int64_t kMaxGaps = 8;
constexpr uintptr_t kAlignment = 64;  // of LibTorch's allocator

enum Kind : int64_t { kNone, kTensor, kInteger, kDouble, kBoolean };

struct Header {
  int64_t kind = kNone;
  int64_t dtype = 0;
  int64_t requires_grad = 0;
  int64_t dense = 0;   // whether the data is sent in the order of the storage
  int64_t offset = 0;  // of the data behind an aligned address, in elements: kernels' sums may depend on it
  int64_t number = 0;  // of dimensions; else the value of an integer, the bits of a float
  std::array<int64_t, kMaxDimensions> sizes{};
  std::array<int64_t, kMaxDimensions> strides{};
};
static_assert(sizeof(Header) == (6 + 2 * kMaxDimensions) * sizeof(int64_t));

struct Layout {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  std::vector<int64_t> unique;  // sizes without the repetitions of dimensions with stride 0

  int64_t count() const {
    int64_t product = 1;
    for (const int64_t size : unique) {
      product *= size;
    }
    return product;
  }
};

Layout layout_of(at::IntArrayRef sizes, at::IntArrayRef strides) {
  Layout layout{sizes.vec(), strides.vec(), sizes.vec()};
  for (size_t d = 0; d < layout.unique.size(); ++d) {
    layout.unique[d] = layout.strides[d] == 0 ? std::min<int64_t>(layout.sizes[d], 1) : layout.sizes[d];
  }
  return layout;
}

at::Tensor describe(const at::Tensor& given, Header& header) {
  const at::Tensor tensor = given.detach().resolve_conj().resolve_neg();
  if (tensor.layout() != at::kStrided || static_cast<size_t>(tensor.dim()) > kMaxDimensions) {
    throw_internal("a tensor of layout {} and {} dimensions cannot be sent", c10::str(tensor.layout()), tensor.dim());
  }
  const Layout layout = layout_of(tensor.sizes(), tensor.strides());
  at::Tensor unique = tensor;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    unique = unique.narrow(d, 0, layout.unique[static_cast<size_t>(d)]);
  }
  header.kind = kTensor;
  header.dtype = static_cast<int64_t>(tensor.scalar_type());
  header.requires_grad = given.requires_grad() ? 1 : 0;
  header.dense = unique.is_non_overlapping_and_dense() ? 1 : 0;
  header.offset = static_cast<int64_t>(
      reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % kAlignment /
      static_cast<uintptr_t>(tensor.element_size()));
  header.number = tensor.dim();
  std::copy(layout.sizes.begin(), layout.sizes.end(), header.sizes.begin());
  std::copy(layout.strides.begin(), layout.strides.end(), header.strides.begin());
  return header.dense != 0 ? unique.as_strided({unique.numel()}, {1}) : unique.contiguous().view({-1});
}

at::Tensor describe(const c10::IValue& value, Header& header) {
  if (value.isTensor()) {
    return value.toTensor().defined() ? describe(value.toTensor(), header) : at::Tensor();
  }
  if (value.isInt()) {
    header.kind = kInteger;
    header.number = value.toInt();
  } else if (value.isDouble()) {
    header.kind = kDouble;
    header.number = std::bit_cast<int64_t>(value.toDouble());
  } else if (value.isBool()) {
    header.kind = kBoolean;
    header.number = value.toBool() ? 1 : 0;
  } else if (!value.isNone()) {
    throw_internal("a value of kind {} cannot be sent", value.tagKind());
  }
  return {};
}

// Puts data in storage order, or in the order of the elements, into the shape that was sent.
at::Tensor unpack(const at::Tensor& data, const Header& header) {
  const auto number = static_cast<size_t>(header.number);
  const Layout layout = layout_of({header.sizes.data(), number}, {header.strides.data(), number});
  at::Tensor unique;
  if (header.dense != 0) {
    unique = at::empty({0}, data.options());  // no view: it may become a leaf
    unique.set_(data.storage(), header.offset, layout.unique, layout.strides);
  } else {
    int64_t span = 1;
    for (size_t d = 0; d < number; ++d) {
      span += (layout.unique[d] - 1) * layout.strides[d];
    }
    unique = data.view(layout.unique);
    if (layout.count() > 0 && span <= kMaxGaps * layout.count()) {
      unique = at::empty({header.offset + span}, data.options())
                   .as_strided(layout.unique, layout.strides, header.offset)
                   .copy_(unique);
    }
  }
  return layout.unique == layout.sizes ? unique : unique.expand(layout.sizes);
}

}  // namespace

int64_t send_bundle(const comm::Transport& transport, const std::vector<c10::IValue>& values, int dst, int tag) {
  if (values.empty()) {
    return 0;
  }
  const c10::AutoGradMode no_grad(false);
  const at::Tensor headers =
      at::zeros({static_cast<int64_t>(values.size() * sizeof(Header) / sizeof(int64_t))}, at::kLong);
  auto* header = static_cast<Header*>(headers.mutable_data_ptr());
  std::vector<at::Tensor> messages = {headers};
  for (const c10::IValue& value : values) {
    *header = {};
    at::Tensor data = describe(value, *header++);
    if (data.defined()) {
      messages.push_back(std::move(data));
    }
  }
  int64_t bytes = 0;
  for (const at::Tensor& message : messages) {
    transport.isend(message, dst, tag);
    bytes += static_cast<int64_t>(message.nbytes());
  }
  return bytes;
}

std::vector<Received> receive_bundle(
    const comm::Transport& transport, size_t count, int src, int tag, at::Device device) {
  if (count == 0) {
    return {};
  }
  const c10::AutoGradMode no_grad(false);
  const at::Tensor headers = at::empty({static_cast<int64_t>(count * sizeof(Header) / sizeof(int64_t))}, at::kLong);
  transport.irecv(headers, src, tag).wait();
  const auto* header = static_cast<const Header*>(headers.const_data_ptr());
  std::vector<at::Tensor> data(count);
  std::vector<comm::MessageHandle> messages(count);
  for (size_t i = 0; i < count; ++i) {
    if (header[i].kind == kTensor) {
      const auto number = static_cast<size_t>(header[i].number);
      const Layout layout = layout_of({header[i].sizes.data(), number}, {header[i].strides.data(), number});
      const at::TensorOptions options = at::TensorOptions(device).dtype(static_cast<at::ScalarType>(header[i].dtype));
      data[i] = at::empty({header[i].offset + layout.count()}, options).narrow(0, header[i].offset, layout.count());
      messages[i] = transport.irecv(data[i], src, tag);
    }
  }
  std::vector<Received> values(count);
  for (size_t i = 0; i < count; ++i) {
    switch (header[i].kind) {
      case kTensor:
        messages[i].wait();
        values[i] = {unpack(data[i], header[i]), header[i].requires_grad != 0};
        break;
      case kInteger:
        values[i].value = header[i].number;
        break;
      case kDouble:
        values[i].value = std::bit_cast<double>(header[i].number);
        break;
      case kBoolean:
        values[i].value = header[i].number != 0;
        break;
      default:
        break;
    }
  }
  return values;
}

c10::IValue to_device(const c10::IValue& value, at::Device device) {
  return value.isTensor() && value.toTensor().defined() ? c10::IValue(value.toTensor().to(device)) : value;
}

at::Tensor bytes_of(const std::string& text) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), text.data(), text.size());
  return tensor;
}

std::string text_of(const at::Tensor& bytes) {
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<size_t>(bytes.numel())};
}

}  // namespace shardpipe::runtime
