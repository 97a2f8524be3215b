#pragma once

// What the tests of this folder share.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/simd_level.h"
#include "shardpipe/error.h"
#include "support/close.h"

namespace shardpipe::kernels {

/// Runs body() at every SIMD level of this processor.
template <typename Body>
void at_each_simd_level(const Body& body) {
  const SimdLevel before = simd_level();
  for (const SimdLevel level : available_simd_levels()) {
    SCOPED_TRACE(to_string(level));
    force_simd_level(level);
    body();
  }
  force_simd_level(before);
}

/// Runs body() with this many threads.
template <typename Body>
auto with_threads(int threads, const Body& body) {
  const int before = at::get_num_threads();
  at::set_num_threads(threads);
  auto result = body();
  at::set_num_threads(before);
  return result;
}

inline at::Tensor randn(at::IntArrayRef sizes, at::ScalarType dtype = at::kFloat) {
  return at::randn(sizes).to(dtype);
}

/// Expects body() to throw Error(usage) whose line holds each of the texts.
template <typename Body>
void expect_usage_error(const Body& body, const std::vector<std::string>& texts) {
  try {
    body();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    for (const std::string& text : texts) {
      EXPECT_THAT(error.what(), testing::HasSubstr(text));
    }
  }
}

}  // namespace shardpipe::kernels
