#pragma once

namespace shardpipe::kernels {

/// Registers the operators of ops.h and their reference forms with LibTorch's dispatcher under the namespace
/// `shardpipe`:
///   linear, linear_group, linear_gated, rms_norm, add_rms_norm, rotary, rotary_reference, cached_attention,
///   cached_attention_reference
/// for the CPU, for meta tensors (shapes only) and, through the reference forms, for every other device. Call it before
/// the first use; further calls do nothing; safe from several threads.
void register_operators();

}  // namespace shardpipe::kernels
