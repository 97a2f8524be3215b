#include "frontend/hf/layers.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <array>
#include <string_view>

#include "base/error.h"

namespace shardpipe::hf {
namespace {

// An operator's optional argument: a graph has none in place of an undefined tensor.
std::optional<at::Tensor> given(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

}  // namespace

at::Tensor ScopedModule::weight(const char* name, at::IntArrayRef sizes, at::ScalarType dtype) {
  // A trace needs no gradients: whether a parameter is trained is decided by who runs the graph.
  return register_parameter(name, at::empty(sizes, at::TensorOptions(dtype).device(at::kMeta)), false);
}

Linear::Linear(int64_t in, int64_t out, bool bias, at::ScalarType dtype)
    : ScopedModule("Linear"), weight_(weight("weight", {out, in}, dtype)) {
  if (bias) {
    bias_ = weight("bias", {out}, dtype);
  }
}

Linear::Linear(const at::Tensor& tied_weight, bool bias)
    : ScopedModule("Linear"), weight_(tied("weight", tied_weight)) {
  if (bias) {
    bias_ = weight("bias", {tied_weight.size(0)}, tied_weight.scalar_type());
  }
}

Linear::Linear(const at::Tensor& tied_weight, const at::Tensor& tied_bias)
    : ScopedModule("Linear"), weight_(tied("weight", tied_weight)), bias_(tied("bias", tied_bias)) {}

at::Tensor Linear::forward(const at::Tensor& x) const {
  const trace::ModuleScope scope = enter();
  return at::linear(x, weight_, given(bias_));
}

Conv1D::Conv1D(int64_t in, int64_t out, at::ScalarType dtype)
    : ScopedModule("Conv1D"), weight_(weight("weight", {in, out}, dtype)), bias_(weight("bias", {out}, dtype)) {}

at::Tensor Conv1D::forward(const at::Tensor& x) const {
  const trace::ModuleScope scope = enter();
  return x.dim() == 2 ? at::addmm(bias_, x, weight_) : at::linear(x, weight_.t(), bias_);
}

Embedding::Embedding(int64_t count, int64_t dim, at::ScalarType dtype, std::optional<int64_t> padding)
    : ScopedModule("Embedding"),
      weight_(ScopedModule::weight("weight", {count, dim}, dtype)),
      padding_(padding.value_or(-1)) {}

Embedding::Embedding(const at::Tensor& tied_weight) : ScopedModule("Embedding"), weight_(tied("weight", tied_weight)) {}

at::Tensor Embedding::forward(const at::Tensor& ids) const {
  const trace::ModuleScope scope = enter();
  return at::embedding(weight_, ids, padding_);
}

std::optional<int64_t> padding_row(const Config& config, int64_t rows, std::optional<int64_t> fallback) {
  if (!config.written("pad_token_id")) {
    return fallback;
  }
  std::optional<int64_t> row = config.find_integer("pad_token_id");
  if (row && *row < 0) {
    *row += rows;
  }
  return row && *row >= 0 && *row < rows ? row : std::nullopt;
}

RmsNorm::RmsNorm(std::string class_name, int64_t dim, double eps, at::ScalarType dtype)
    : ScopedModule(std::move(class_name)), weight_(weight("weight", {dim}, dtype)), eps_(eps) {}

at::Tensor RmsNorm::forward(const at::Tensor& x) const {
  const trace::ModuleScope scope = enter();
  if (x.scalar_type() == at::kFloat) {
    return at::rms_norm(x, weight_.sizes(), weight_, eps_);
  }
  return weight_ * at::rms_norm(x.to(at::kFloat), weight_.sizes(), std::nullopt, eps_).to(x.scalar_type());
}

LayerNorm::LayerNorm(int64_t dim, double eps, at::ScalarType dtype, bool affine)
    : ScopedModule("LayerNorm"), dim_(dim), eps_(eps) {
  if (affine) {
    weight_ = weight("weight", {dim}, dtype);
    bias_ = weight("bias", {dim}, dtype);
  }
}

at::Tensor LayerNorm::forward(const at::Tensor& x) const {
  const trace::ModuleScope scope = enter();
  return at::layer_norm(x, {dim_}, given(weight_), given(bias_), eps_);
}

FeedForward::FeedForward(
    std::string class_name,
    const std::string& in_name,
    const std::string& out_name,
    Sizes sizes,
    Activation activation,
    at::ScalarType dtype)
    : ScopedModule(std::move(class_name)),
      activation_(activation),
      in_(child<Linear>(in_name, sizes.hidden, sizes.inner, true, dtype)),
      out_(child<Linear>(out_name, sizes.inner, sizes.hidden, true, dtype)) {}

at::Tensor FeedForward::forward(const at::Tensor& x) const {
  const trace::ModuleScope scope = enter();
  return out_->forward(activation_(in_->forward(x)));
}

namespace {

at::Tensor gelu(const at::Tensor& x) {
  return at::gelu(x);
}
// transformers spells the same formula in several ways, which differ by rounding only.
at::Tensor gelu_tanh(const at::Tensor& x) {
  return at::gelu(x, "tanh");
}
at::Tensor gelu_10(const at::Tensor& x) {
  return at::clamp(at::gelu(x), -10, 10);
}
at::Tensor quick_gelu(const at::Tensor& x) {
  return x * at::sigmoid(x * 1.702);
}
at::Tensor silu(const at::Tensor& x) {
  return at::silu(x);
}
at::Tensor relu(const at::Tensor& x) {
  return at::relu(x);
}
at::Tensor relu2(const at::Tensor& x) {
  return at::square(at::relu(x));
}
at::Tensor relu6(const at::Tensor& x) {
  return at::relu6(x);
}
at::Tensor leaky_relu(const at::Tensor& x) {
  return at::leaky_relu(x);
}
at::Tensor hardswish(const at::Tensor& x) {
  return at::hardswish(x);
}
at::Tensor mish(const at::Tensor& x) {
  return at::mish(x);
}
at::Tensor sigmoid(const at::Tensor& x) {
  return at::sigmoid(x);
}
at::Tensor tanh(const at::Tensor& x) {
  return at::tanh(x);
}
at::Tensor linear(const at::Tensor& x) {
  return x;
}

constexpr std::array<std::pair<std::string_view, Activation>, 20> kActivations = {{
    {"gelu", gelu},
    {"gelu_10", gelu_10},
    {"gelu_accurate", gelu_tanh},
    {"gelu_fast", gelu_tanh},
    {"gelu_new", gelu_tanh},
    {"gelu_python", gelu},
    {"gelu_python_tanh", gelu_tanh},
    {"gelu_pytorch_tanh", gelu_tanh},
    {"hardswish", hardswish},
    {"leaky_relu", leaky_relu},
    {"linear", linear},
    {"mish", mish},
    {"quick_gelu", quick_gelu},
    {"relu", relu},
    {"relu2", relu2},
    {"relu6", relu6},
    {"sigmoid", sigmoid},
    {"silu", silu},
    {"swish", silu},
    {"tanh", tanh},
}};

}  // namespace

Activation find_activation(const Config& config, Key key, const char* fallback) {
  const std::string wanted = config.string(key, fallback);
  std::string known;
  for (const auto& [name, activation] : kActivations) {
    if (name == wanted) {
      return activation;
    }
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  throw_usage("{}: known activations are {}", config.subject(key), known);
}

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("shardpipe::rotary_reference", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>();
  return op.call(x, cos, sin);
}

}  // namespace shardpipe::hf
