#pragma once

// The operators of namespace shardpipe:: on the CPU, as C++ functions. They are inference operators: no gradient
// formula; the dispatcher refuses them (Error(usage)) when an input requires grad under GradMode. float32 and bfloat16
// run our kernels, other dtypes LibTorch's (reference.h). All throw Error(usage) naming the operator and the shapes.
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

namespace shardpipe::kernels {

/// x weight^T + bias. x [..., in], weight [out, in], bias [out] or none; returns [..., out]. Up to `few_rows` rows
/// (product of x's leading sizes) run our own kernel: each row of the result depends on its row of x only and is
/// the same, bit by bit, for any number of rows up to few_rows and any number of threads. More rows run `many`:
/// "onednn" (unpacked weights) or "aten" (at::linear). A weight whose rows are not contiguous always runs `many`.
at::Tensor linear(
    const at::Tensor& x,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    int64_t few_rows,
    std::string_view many);

/// Whether "onednn" runs for this dtype here: LibTorch has the operator and, for bfloat16, the processor has AVX-512.
/// Where it does not, linear's "onednn" runs at::linear.
bool onednn_runs(at::ScalarType dtype);

/// One `linear` per weight with the same x, bitwise the same results, in one parallel region. biases is empty or has
/// one entry per weight.
std::vector<at::Tensor> linear_group(
    const at::Tensor& x,
    at::TensorList weights,
    const c10::List<std::optional<at::Tensor>>& biases,
    int64_t few_rows,
    std::string_view many);

/// act(x gate^T + gate_bias) * (x up^T + up_bias), each step rounded to x's dtype. activation: silu, gelu (erf),
/// gelu_tanh or relu.
at::Tensor linear_gated(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const std::optional<at::Tensor>& gate_bias,
    const std::optional<at::Tensor>& up_bias,
    std::string_view activation,
    int64_t few_rows,
    std::string_view many);

/// weight * T(x / sqrt(mean(x^2) + eps)) over the last dimension, the mean in float32, T = x's dtype, weight [hidden].
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// (x + residual, rms_norm of that sum).
std::tuple<at::Tensor, at::Tensor> add_rms_norm(
    const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps);

/// Rotary embedding, halves convention: x [..., tokens, heads, head_dim], cos and sin [tokens, rotary_dim / 2] float32;
/// elements beyond rotary_dim pass through. Bitwise equal to rotary_reference.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// Writes k and v into the caches, then attends causally. Packed tokens: q [tokens, heads, head_dim], k and v
/// [tokens, kv_heads, head_dim], caches [slots, kv_heads, capacity, head_dim]; token t belongs to cache row slots[t] at
/// positions[t] (int64 [tokens]) and attends to positions 0..positions[t] of its row. Tokens of a slot are contiguous,
/// their positions ascend. Query head h uses K/V head h / (heads / kv_heads). Returns [tokens, heads * head_dim].
/// Softmax and sums are in float32. With `window` (at least 1) a token attends to its last `window` positions only, its
/// own among them. With `slopes` (float32 [heads]) the score of query head h and a key `d` positions back is lower by
/// slopes[h] * d: ALiBi (https://arxiv.org/abs/2108.12409). With `bias` (q's dtype, [rows, heads]) and `bias_rows`
/// (int64 [2 reach + 1]), which go together, the score of query head h and a key at distance d, its position minus the
/// query's, is higher by bias[bias_rows[min(max(d, -reach), reach) + reach]][h]: T5 (https://arxiv.org/abs/1910.10683).
at::Tensor cached_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& positions,
    double scale,
    std::optional<int64_t> window = std::nullopt,
    const std::optional<at::Tensor>& slopes = std::nullopt,
    const std::optional<at::Tensor>& bias = std::nullopt,
    const std::optional<at::Tensor>& bias_rows = std::nullopt);

/// Writes k and v, the keys and values of a source, into the caches, then attends to the whole source of each token's
/// row. Packed: q [tokens, heads, head_dim] with slots [tokens]; k and v [sources, kv_heads, head_dim] with
/// source_slots and source_positions [sources], which may be none; caches [rows, kv_heads, capacity, head_dim]; row r's
/// source has lengths[r] positions, at least 1 where r has tokens. All int64; tokens of a slot are contiguous, source
/// positions of a slot ascend. Returns [tokens, heads * head_dim]. A token's result does not depend on the other
/// tokens.
at::Tensor cross_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& source_slots,
    const at::Tensor& source_positions,
    const at::Tensor& lengths,
    double scale);

/// Each token attends to all tokens of its slot, those after it too. Packed: q [tokens, heads, head_dim], k and v
/// [tokens, kv_heads, head_dim], slots int64 [tokens]; tokens of a slot are contiguous. `bias` and `bias_rows` as in
/// cached_attention, positions being places among the tokens of the slot. Returns [tokens, heads * head_dim]. Through
/// at::scaled_dot_product_attention for every dtype.
at::Tensor sequence_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& slots,
    double scale,
    const std::optional<at::Tensor>& bias = std::nullopt,
    const std::optional<at::Tensor>& bias_rows = std::nullopt);

}  // namespace shardpipe::kernels
