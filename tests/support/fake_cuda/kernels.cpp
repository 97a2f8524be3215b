// Operators that PyTorch has for CUDA alone and that its composite operators call for tensors of CUDA.
#include <ATen/ATen.h>
#include <ATen/SDPBackend.h>
#include <ATen/native/transformers/attention.h>
#include <torch/library.h>

#include <array>
#include <string>
#include <tuple>

#include "call.h"

namespace shardpipe::fake_cuda {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

template <typename... Args>
torch::jit::Stack run(const char* name, Args&&... arguments) {
  torch::jit::Stack stack;
  torch::jit::push(stack, std::forward<Args>(arguments)...);
  call_any_on_host(c10::Dispatcher::singleton().findSchemaOrThrow(name, ""), &stack);
  return stack;
}

// scaled_dot_product_attention takes the CPU's choice. Its flash attention for the CPU has the place of CUDA's memory
// efficient one, so that a device computes what the CPU does, bit by bit.
int64_t choose_attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const OptionalTensor& mask,
    double dropout,
    bool is_causal,
    std::optional<double> scale,
    bool enable_gqa) {
  const bool learns_mask = mask && mask->requires_grad() && at::GradMode::is_enabled();
  const auto flash = static_cast<int64_t>(at::SDPBackend::flash_attention);
  const bool use_flash =
      !learns_mask && at::_fused_sdp_choice(query, key, value, mask, dropout, is_causal, scale, enable_gqa) == flash;
  return static_cast<int64_t>(use_flash ? at::SDPBackend::efficient_attention : at::SDPBackend::math);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const OptionalTensor& mask,
    bool /*compute_log_sumexp*/,
    double dropout,
    bool is_causal,
    std::optional<double> scale) {
  const auto results =
      run("aten::_scaled_dot_product_flash_attention_for_cpu", query, key, value, dropout, is_causal, mask, scale);
  const at::Tensor seed = at::zeros({}, query.options().dtype(at::kLong));
  return {results[0].toTensor(), results[1].toTensor(), seed, seed.clone()};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> attention_backward(
    const at::Tensor& grad,
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const at::Tensor& mask,
    const at::Tensor& out,
    const at::Tensor& log_sumexp,
    const at::Tensor& /*philox_seed*/,
    const at::Tensor& /*philox_offset*/,
    double dropout,
    std::array<bool, 4> /*grad_input_mask*/,
    bool is_causal,
    std::optional<double> scale) {
  const auto results =
      run("aten::_scaled_dot_product_flash_attention_for_cpu_backward", grad, query, key, value, out, log_sumexp,
          dropout, is_causal, mask.defined() ? OptionalTensor(mask) : std::nullopt, scale);
  return {results[0].toTensor(), results[1].toTensor(), results[2].toTensor(), at::Tensor()};
}

at::Tensor add_bias(const at::Tensor& gates, const OptionalTensor& bias) {
  return bias ? gates + *bias : gates;
}

// LSTM: i, f, g, o = gates; c' = sigmoid(f) * c + sigmoid(i) * tanh(g); h' = sigmoid(o) * tanh(c').
std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell(
    const at::Tensor& input_gates,
    const at::Tensor& hidden_gates,
    const at::Tensor& cell,
    const OptionalTensor& input_bias,
    const OptionalTensor& hidden_bias) {
  const at::Tensor gates = add_bias(hidden_gates, hidden_bias) + add_bias(input_gates, input_bias);
  const auto parts = gates.unsafe_chunk(4, 1);
  const at::Tensor next = parts[1].sigmoid() * cell + parts[0].sigmoid() * parts[2].tanh();
  return {parts[3].sigmoid() * next.tanh(), next, gates};
}

// GRU: r, z, n = gates; n' = tanh(n_input + sigmoid(r) * n_hidden); h' = (h - n') * sigmoid(z) + n'.
std::tuple<at::Tensor, at::Tensor> gru_cell(
    const at::Tensor& input_gates,
    const at::Tensor& hidden_gates,
    const at::Tensor& hidden,
    const OptionalTensor& input_bias,
    const OptionalTensor& hidden_bias) {
  const auto of_input = add_bias(input_gates, input_bias).unsafe_chunk(3, 1);
  const auto of_hidden = add_bias(hidden_gates, hidden_bias).unsafe_chunk(3, 1);
  const at::Tensor reset = (of_hidden[0] + of_input[0]).sigmoid();
  const at::Tensor keep = (of_hidden[1] + of_input[1]).sigmoid();
  const at::Tensor fresh = (of_input[2] + of_hidden[2] * reset).tanh();
  return {(hidden - fresh) * keep + fresh, fresh};
}

// The CPU's kernel draws from the generator of the CPU, whatever the caller does.
std::tuple<at::Tensor, at::Tensor> dropout(const at::Tensor& input, double probability, std::optional<bool> train) {
  at::Tensor mask = at::ones_like(input, input.options().dtype(at::kBool), at::MemoryFormat::Contiguous);
  if (!train.value_or(true) || input.numel() == 0) {
    return {input.clone(), mask};
  }
  mask.bernoulli_(1 - probability);
  return {input.mul(mask).mul_(probability == 1 ? 0 : 1 / (1 - probability)), mask};
}

// For _use_{cudnn,miopen}_ctc_loss: neither library is there.
template <typename... Arguments>
bool without_library(Arguments... /*arguments*/) {
  return false;
}

void record_stream(at::Tensor& /*self*/, at::Stream /*stream*/) {}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("_scaled_dot_product_efficient_attention", &attention);
  library.impl("_scaled_dot_product_efficient_attention_backward", &attention_backward);
  library.impl("_thnn_fused_lstm_cell", &lstm_cell);
  library.impl("_thnn_fused_gru_cell", &gru_cell);
  library.impl("native_dropout", &dropout);
  for (const char* name : {"_use_cudnn_ctc_loss", "_use_miopen_ctc_loss"}) {
    library.impl(
        name, &without_library<const at::Tensor&, const at::Tensor&, at::IntArrayRef, at::IntArrayRef, int64_t>);
    library.impl(
        (std::string(name) + ".Tensor").c_str(),
        &without_library<const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t>);
  }
  library.impl("record_stream", &record_stream);
  at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&choose_attention);
}

// Made of differentiable operators: no formula of their own is needed.
TORCH_LIBRARY_IMPL(aten, AutogradCUDA, library) {
  library.impl("_thnn_fused_lstm_cell", &lstm_cell);
  library.impl("_thnn_fused_gru_cell", &gru_cell);
}

}  // namespace shardpipe::fake_cuda
