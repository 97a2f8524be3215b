#pragma once

// T5's configuration, and the arithmetic of its relative positions.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "frontend/hf/config.h"
#include "frontend/hf/layers.h"

namespace shardpipe::hf {

struct T5Config {
  int64_t encoder_layers;
  int64_t decoder_layers;
  int64_t hidden;
  int64_t inner;
  int64_t heads;
  int64_t head_dim;
  int64_t vocab;
  int64_t buckets;
  int64_t max_distance;
  double eps;
  bool gated;
  bool scaled_output;
  Activation activation;
  at::ScalarType dtype;
};

/// Throws as Config, and Error(usage) for float16.
T5Config read_t5(const Config& config, at::ScalarType dtype);

/// Rows of the bias tables, int64 of the shape of `distance`: int64, key's position minus query's. One each for short
/// distances, then by the logarithm; of a decoder (not `bidirectional`) all later keys count as the query's own
/// position.
at::Tensor t5_buckets(const at::Tensor& distance, bool bidirectional, const T5Config& config);

/// The same for all distances from -max_distance to max_distance in turn: those further away have the row of the last.
at::Tensor t5_bucket_line(bool bidirectional, const T5Config& config);

}  // namespace shardpipe::hf
