#include "kernels/register.h"

#include <torch/library.h>

#include <list>

#include "kernels/checks.h"
#include "kernels/grad_guard.h"
#include "kernels/meta.h"
#include "kernels/ops.h"
#include "kernels/reference.h"

namespace shardpipe::kernels {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

constexpr const char* kSchemas[] = {
    "linear(Tensor x, Tensor weight, Tensor? bias, int few_rows, str many) -> Tensor",
    "linear_group(Tensor x, Tensor[] weights, Tensor?[] biases, int few_rows, str many) -> Tensor[]",
    "linear_gated(Tensor x, Tensor gate, Tensor up, Tensor? gate_bias, Tensor? up_bias, str activation, int few_rows, "
    "str many) -> Tensor",
    "rms_norm(Tensor x, Tensor weight, float eps) -> Tensor",
    "add_rms_norm(Tensor x, Tensor residual, Tensor weight, float eps) -> (Tensor, Tensor)",
    "rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor",
    "rotary_reference(Tensor x, Tensor cos, Tensor sin) -> Tensor",
    "cached_attention(Tensor q, Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor slots, "
    "Tensor positions, float scale, int? window=None, Tensor? slopes=None, Tensor? bias=None, "
    "Tensor? bias_rows=None) -> Tensor",
    "cached_attention_reference(Tensor q, Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor slots, "
    "Tensor positions, float scale, int? window=None, Tensor? slopes=None, Tensor? bias=None, "
    "Tensor? bias_rows=None) -> Tensor",
    "cross_attention(Tensor q, Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor slots, "
    "Tensor source_slots, Tensor source_positions, Tensor lengths, float scale) -> Tensor",
    "cross_attention_reference(Tensor q, Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor slots, "
    "Tensor source_slots, Tensor source_positions, Tensor lengths, float scale) -> Tensor",
    "sequence_attention(Tensor q, Tensor k, Tensor v, Tensor slots, float scale, Tensor? bias=None, "
    "Tensor? bias_rows=None) -> Tensor",
};

// All but rotary_reference, which autograd sees through.
constexpr const char* kWithoutGradient[] = {
    "linear",
    "linear_group",
    "linear_gated",
    "rms_norm",
    "add_rms_norm",
    "rotary",
    "cached_attention",
    "cached_attention_reference",
    "cross_attention",
    "cross_attention_reference",
    "sequence_attention"};

// Devices without kernels of ours: LibTorch's operators.
at::Tensor any_linear(
    const at::Tensor& x,
    const at::Tensor& weight,
    const OptionalTensor& bias,
    int64_t /*few_rows*/,
    std::string_view many) {
  check_linear("linear", x, weight, bias);
  check_many("linear", many);
  return at::linear(x, weight, bias);
}

std::vector<at::Tensor> any_linear_group(
    const at::Tensor& x,
    at::TensorList weights,
    const c10::List<OptionalTensor>& biases,
    int64_t /*few_rows*/,
    std::string_view many) {
  check_linear_group(x, weights, biases);
  check_many("linear_group", many);
  std::vector<at::Tensor> outputs;
  for (size_t i = 0; i < weights.size(); ++i) {
    outputs.push_back(at::linear(x, weights[i], bias_of(biases, i)));
  }
  return outputs;
}

at::Tensor any_linear_gated(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const OptionalTensor& gate_bias,
    const OptionalTensor& up_bias,
    std::string_view activation,
    int64_t /*few_rows*/,
    std::string_view many) {
  check_linear_gated(x, gate, up, gate_bias, up_bias);
  check_many("linear_gated", many);
  return linear_gated_reference(x, gate, up, gate_bias, up_bias, parse_activation(activation));
}

/// Registrations last as long as their Library objects.
class Registration {
 public:
  Registration() {
    torch::Library& schemas = library(torch::Library::FRAGMENT, std::nullopt);
    for (const char* schema : kSchemas) {
      schemas.def(schema);
    }

    torch::Library& cpu = library(torch::Library::IMPL, c10::DispatchKey::CPU);
    cpu.impl("linear", TORCH_FN(linear));
    cpu.impl("linear_group", TORCH_FN(linear_group));
    cpu.impl("linear_gated", TORCH_FN(linear_gated));
    cpu.impl("rms_norm", TORCH_FN(rms_norm));
    cpu.impl("add_rms_norm", TORCH_FN(add_rms_norm));
    cpu.impl("rotary", TORCH_FN(rotary));
    cpu.impl("cached_attention", TORCH_FN(cached_attention));
    cpu.impl("cross_attention", TORCH_FN(cross_attention));

    torch::Library& any = library(torch::Library::IMPL, c10::DispatchKey::CompositeExplicitAutograd);
    any.impl("linear", TORCH_FN(any_linear));
    any.impl("linear_group", TORCH_FN(any_linear_group));
    any.impl("linear_gated", TORCH_FN(any_linear_gated));
    any.impl("rms_norm", TORCH_FN(rms_norm_reference));
    any.impl("add_rms_norm", TORCH_FN(add_rms_norm_reference));
    any.impl("rotary", TORCH_FN(rotary_reference));
    any.impl("cached_attention", TORCH_FN(cached_attention_reference));
    any.impl("cached_attention_reference", TORCH_FN(cached_attention_reference));
    any.impl("cross_attention", TORCH_FN(cross_attention_reference));
    any.impl("cross_attention_reference", TORCH_FN(cross_attention_reference));
    any.impl("sequence_attention", TORCH_FN(sequence_attention));
    library(torch::Library::IMPL, c10::DispatchKey::CompositeImplicitAutograd)
        .impl("rotary_reference", TORCH_FN(rotary_reference));

    torch::Library& meta = library(torch::Library::IMPL, c10::DispatchKey::Meta);
    meta.impl("linear", TORCH_FN(meta_linear));
    meta.impl("linear_group", TORCH_FN(meta_linear_group));
    meta.impl("linear_gated", TORCH_FN(meta_linear_gated));
    meta.impl("rms_norm", TORCH_FN(meta_rms_norm));
    meta.impl("add_rms_norm", TORCH_FN(meta_add_rms_norm));
    meta.impl("rotary", TORCH_FN(meta_rotary));
    meta.impl("cached_attention", TORCH_FN(meta_cached_attention));
    meta.impl("cached_attention_reference", TORCH_FN(meta_cached_attention));
    meta.impl("cross_attention", TORCH_FN(meta_cross_attention));
    meta.impl("cross_attention_reference", TORCH_FN(meta_cross_attention));
    meta.impl("sequence_attention", TORCH_FN(meta_sequence_attention));

    torch::Library& autograd = library(torch::Library::IMPL, c10::DispatchKey::Autograd);
    for (const char* name : kWithoutGradient) {
      autograd.impl(name, torch::CppFunction::makeFromBoxedFunction<&refuse_gradient>());
    }
  }

 private:
  torch::Library& library(torch::Library::Kind kind, std::optional<c10::DispatchKey> key) {
    return libraries_.emplace_back(kind, "shardpipe", key, __FILE__, __LINE__);
  }

  std::list<torch::Library> libraries_;
};

}  // namespace

void register_operators() {
  // Never destroyed: other static objects may hold handles of the operators.
  static const auto* registration = new Registration;
  (void)registration;
}

}  // namespace shardpipe::kernels
