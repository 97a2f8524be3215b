// linear, linear_group and linear_gated: few rows through our product kernel, many through oneDNN or at::linear.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "base/error.h"
#include "kernels/checks.h"
#include "kernels/ops.h"
#include "kernels/parallel.h"
#include "kernels/reference.h"
#include "kernels/simd_level.h"

namespace shardpipe::kernels {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// Outputs are handed to threads in groups of this many, the height of a tile of weights.
constexpr int64_t kGroup = 4;

// mkldnn::_linear_pointwise(X, W, B, "none", [], ""): oneDNN on weights as they are.
using OnednnLinear = at::Tensor(
    const at::Tensor&,
    const at::Tensor&,
    const OptionalTensor&,
    std::string_view,
    c10::List<std::optional<at::Scalar>>,
    std::optional<std::string_view>);

const std::optional<c10::TypedOperatorHandle<OnednnLinear>>& onednn_operator() {
  static const auto found = []() -> std::optional<c10::TypedOperatorHandle<OnednnLinear>> {
    const auto op = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!op.has_value() || !op->hasKernelForDispatchKey(c10::DispatchKey::CPU)) {
      return std::nullopt;
    }
    return op->typed<OnednnLinear>();
  }();
  return found;
}

at::Tensor linear_many(
    const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias, std::string_view many) {
  if (many == "onednn" && x.numel() > 0 && weight.numel() > 0 && onednn_runs(x.scalar_type())) {
    static const c10::List<std::optional<at::Scalar>> no_scalars;
    return onednn_operator()->call(x, weight, bias, "none", no_scalars, "");
  }
  return at::linear(x, weight, bias);
}

int64_t count_rows(const at::Tensor& x) {
  return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1);
}

bool runs_few(const at::Tensor& x, const at::Tensor& weight, int64_t few_rows) {
  const int64_t rows = count_rows(x);
  return rows > 0 && rows <= few_rows && has_own_kernel(x) && weight.size(0) > 0 &&
         (weight.stride(1) == 1 || weight.size(1) == 1);
}

// x as [rows, in] with contiguous elements in each row.
at::Tensor as_rows(const at::Tensor& x) {
  at::Tensor rows = x.dim() == 2 ? x : x.reshape({-1, x.size(-1)});
  return rows.stride(1) == 1 || rows.size(1) == 1 ? rows : rows.contiguous();
}

at::Tensor dense(const OptionalTensor& bias) {
  return bias.has_value() && bias->defined() ? bias->contiguous() : at::Tensor();
}

template <typename T>
Product<T> make_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& y) {
  Product<T> p;
  p.x = x.const_data_ptr<T>();
  p.x_stride = x.stride(0);
  p.rows = x.size(0);
  p.in = x.size(1);
  p.weight = weight.const_data_ptr<T>();
  p.weight_stride = weight.stride(0);
  p.bias = bias.defined() ? bias.const_data_ptr<T>() : nullptr;
  p.y = y.mutable_data_ptr<T>();
  p.y_stride = weight.size(0);
  p.end = weight.size(0);
  return p;
}

int64_t groups_of(int64_t outputs) {
  return (outputs + kGroup - 1) / kGroup;
}

// Runs the products' groups of outputs as one list, each thread a contiguous part of it.
template <typename T>
void run_products(const std::vector<Product<T>>& products) {
  const auto& table = kernel_table<T>();
  int64_t groups = 0;
  int64_t work = 0;
  for (const auto& p : products) {
    groups += groups_of(p.end);
    work += p.end * p.in * std::max<int64_t>(static_cast<int64_t>(sizeof(T)), p.rows / 2);
  }
  parallel_ranges(groups, work, [&](int64_t begin, int64_t end) {
    int64_t first = 0;
    for (size_t i = 0; i < products.size() && first < end; ++i) {
      const int64_t count = groups_of(products[i].end);
      const int64_t from = std::max(begin - first, int64_t{0});
      const int64_t to = std::min(end - first, count);
      if (from < to) {
        Product<T> part = products[i];
        part.begin = from * kGroup;
        part.end = std::min(to * kGroup, part.end);
        const bool goes_on = first + count < end && i + 1 < products.size();
        part.then = goes_on ? products[i + 1].weight : nullptr;
        table.product(part);
      }
      first += count;
    }
  });
}

// One thread's outputs of gate and up, in tiles that stay in the first-level cache until they are combined.
template <typename T>
void run_gated(const Product<T>& gate, const Product<T>& up, T* out, Activation activation) {
  constexpr int64_t kTile = 128;
  const auto& table = kernel_table<T>();
  const int64_t work = 2 * gate.end * gate.in * std::max<int64_t>(static_cast<int64_t>(sizeof(T)), gate.rows / 2);
  parallel_ranges(groups_of(gate.end), work, [&](int64_t first_group, int64_t last_group) {
    const int64_t last = std::min(last_group * kGroup, gate.end);
    std::vector<T> gates(static_cast<size_t>(gate.rows * kTile));
    std::vector<T> ups(gates.size());
    for (int64_t begin = first_group * kGroup; begin < last; begin += kTile) {
      const int64_t end = std::min(begin + kTile, last);
      const auto part = [&](const Product<T>& whole, std::vector<T>& to, const T* then) {
        Product<T> p = whole;
        p.weight += begin * p.weight_stride;
        p.bias = p.bias == nullptr ? nullptr : p.bias + begin;
        p.end = end - begin;
        p.y = to.data();
        p.y_stride = kTile;
        p.then = then;
        table.product(p);
      };
      part(gate, gates, up.weight + begin * up.weight_stride);
      part(up, ups, end < last ? gate.weight + end * gate.weight_stride : nullptr);
      for (int64_t r = 0; r < gate.rows; ++r) {
        const auto at_row = static_cast<size_t>(r * kTile);
        table.gate(&gates[at_row], &ups[at_row], out + r * up.y_stride + begin, end - begin, activation);
      }
    }
  });
}

}  // namespace

bool onednn_runs(at::ScalarType dtype) {
  const bool processor = dtype == at::kFloat || (dtype == at::kBFloat16 && highest_simd_level() >= SimdLevel::avx512);
  return processor && onednn_operator().has_value();
}

at::Tensor linear(
    const at::Tensor& x,
    const at::Tensor& weight,
    const OptionalTensor& bias,
    int64_t few_rows,
    std::string_view many) {
  check_linear("linear", x, weight, bias);
  check_many("linear", many);
  if (!runs_few(x, weight, few_rows)) {
    return linear_many(x, weight, bias, many);
  }
  const at::Tensor rows = as_rows(x);
  const at::Tensor bias_values = dense(bias);
  at::Tensor y = at::empty(with_last_size(x, weight.size(0)), x.options());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    run_products<T>({make_product<T>(rows, weight, bias_values, y)});
  });
  return y;
}

std::vector<at::Tensor> linear_group(
    const at::Tensor& x,
    at::TensorList weights,
    const c10::List<OptionalTensor>& biases,
    int64_t few_rows,
    std::string_view many) {
  check_many("linear_group", many);
  check_linear_group(x, weights, biases);
  const bool few = !weights.empty() && std::all_of(weights.begin(), weights.end(), [&](const at::Tensor& weight) {
    return runs_few(x, weight, few_rows);
  });
  std::vector<at::Tensor> outputs;
  outputs.reserve(weights.size());
  if (!few) {
    for (size_t i = 0; i < weights.size(); ++i) {
      outputs.push_back(linear(x, weights[i], bias_of(biases, i), few_rows, many));
    }
    return outputs;
  }
  const at::Tensor rows = as_rows(x);
  std::vector<at::Tensor> bias_values;
  for (size_t i = 0; i < weights.size(); ++i) {
    bias_values.push_back(dense(bias_of(biases, i)));
    outputs.push_back(at::empty(with_last_size(x, weights[i].size(0)), x.options()));
  }
  with_type(x, [&](auto type) {
    using T = decltype(type);
    std::vector<Product<T>> products;
    for (size_t i = 0; i < weights.size(); ++i) {
      products.push_back(make_product<T>(rows, weights[i], bias_values[i], outputs[i]));
    }
    run_products<T>(products);
  });
  return outputs;
}

at::Tensor linear_gated(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const OptionalTensor& gate_bias,
    const OptionalTensor& up_bias,
    std::string_view activation_name,
    int64_t few_rows,
    std::string_view many) {
  const Activation activation = parse_activation(activation_name);
  check_many("linear_gated", many);
  check_linear_gated(x, gate, up, gate_bias, up_bias);
  if (!has_own_kernel(x)) {
    return linear_gated_reference(x, gate, up, gate_bias, up_bias, activation);
  }
  if (!runs_few(x, gate, few_rows) || !runs_few(x, up, few_rows)) {
    at::Tensor gates = linear(x, gate, gate_bias, few_rows, many);
    const at::Tensor ups = linear(x, up, up_bias, few_rows, many);
    with_type(x, [&](auto type) {
      using T = decltype(type);
      constexpr int64_t kBlock = 1024;
      const int64_t blocks = (gates.numel() + kBlock - 1) / kBlock;
      T* g = gates.mutable_data_ptr<T>();
      const T* u = ups.const_data_ptr<T>();
      parallel_ranges(blocks, gates.numel() * 8, [&](int64_t begin, int64_t end) {
        const int64_t from = begin * kBlock;
        const int64_t to = std::min(end * kBlock, gates.numel());
        kernel_table<T>().gate(g + from, u + from, g + from, to - from, activation);
      });
    });
    return gates;
  }
  const at::Tensor rows = as_rows(x);
  const at::Tensor gate_values = dense(gate_bias);
  const at::Tensor up_values = dense(up_bias);
  at::Tensor y = at::empty(with_last_size(x, gate.size(0)), x.options());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    run_gated<T>(
        make_product<T>(rows, gate, gate_values, y), make_product<T>(rows, up, up_values, y), y.mutable_data_ptr<T>(),
        activation);
  });
  return y;
}

}  // namespace shardpipe::kernels
