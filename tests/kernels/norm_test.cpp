#include "each_simd_level.h"
#include "kernels/ops.h"
#include "kernels/reference.h"

namespace shardpipe::kernels {
namespace {

using test::bitwise_equal;
using test::close;

// Reference in float64 with the rounding order of transformers' LlamaRMSNorm. The scale has the error of a sum of n
// squares, halved by the root, and a few roundings; in bfloat16 that may move one rounding of the normed value, and the
// product rounds again.
test::Expected expected_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto dtype = x.scalar_type();
  const at::Tensor x64 = x.to(at::kDouble);
  const at::Tensor normed = x64 * at::rsqrt(x64.pow(2).mean(-1, true) + eps);
  const at::Tensor value = normed * weight.to(at::kDouble);
  const double scale_error = test::gamma(static_cast<double>(x.size(-1)) / 2 + 4, at::kFloat);
  const at::Tensor bound = value.abs() * scale_error + test::rounding_bound(value, 2, dtype);
  return {value, bound * (1 + test::rounding_unit(dtype))};
}

TEST(RmsNorm, AgreesWithFloat64) {
  at_each_simd_level([] {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (const int64_t hidden : {1, 3, 16, 31, 64, 65, 576, 2048, 4099}) {
        SCOPED_TRACE(fmt::format("{} {}", hidden, c10::toString(dtype)));
        const at::Tensor x = randn({3, 2, hidden}, dtype) * 3;
        const at::Tensor w = randn({hidden}, dtype);
        EXPECT_TRUE(close(rms_norm(x, w, 1e-5), expected_rms_norm(x, w, 1e-5)));
        const at::Tensor r = randn({3, 2, hidden}, dtype);
        const auto [sum, normed] = add_rms_norm(x, r, w, 1e-5);
        EXPECT_TRUE(bitwise_equal(sum, x + r));
        EXPECT_TRUE(bitwise_equal(normed, rms_norm(sum, w, 1e-5)));
      }
    }
  });
}

TEST(RmsNorm, ReferenceAgreesWithFloat64) {
  const at::Tensor x = randn({5, 576}, at::kBFloat16);
  const at::Tensor w = randn({576}, at::kBFloat16);
  EXPECT_TRUE(close(rms_norm_reference(x, w, 1e-5), expected_rms_norm(x, w, 1e-5)));
}

TEST(RmsNorm, StridedInputsThreadsAndTinyRows) {
  at_each_simd_level([] {
    const at::Tensor x = randn({576, 100}).t();
    const at::Tensor w = randn({1152}).slice(0, 0, 1152, 2);
    const at::Tensor one = with_threads(1, [&] { return rms_norm(x, w, 1e-6); });
    EXPECT_TRUE(bitwise_equal(with_threads(2, [&] { return rms_norm(x, w, 1e-6); }), one));
    EXPECT_TRUE(close(one, expected_rms_norm(x, w, 1e-6)));
    EXPECT_TRUE(close(rms_norm(x * 1e-12, w, 1e-6), expected_rms_norm(x * 1e-12, w, 1e-6)));
    const auto [sum, normed] = add_rms_norm(x, randn({576, 100}).t(), w, 1e-6);
    EXPECT_TRUE(bitwise_equal(normed, rms_norm(sum, w, 1e-6)));
  });
  EXPECT_EQ(rms_norm(at::zeros({0, 8}), at::ones({8}), 1e-5).sizes(), (at::IntArrayRef{0, 8}));
}

TEST(RmsNorm, OtherDtypesRunTheReference) {
  const at::Tensor x = randn({4, 40}, at::kHalf);
  const at::Tensor w = randn({40}, at::kHalf);
  EXPECT_TRUE(bitwise_equal(rms_norm(x, w, 1e-5), rms_norm_reference(x, w, 1e-5)));
  const at::Tensor mixed = rms_norm(x.to(at::kBFloat16), w.to(at::kFloat), 1e-5);
  EXPECT_EQ(mixed.scalar_type(), at::kFloat);
}

TEST(RmsNormErrors, NameTheShapes) {
  expect_usage_error([] { rms_norm(randn({2, 8}), randn({9}), 1e-5); }, {"rms_norm:", "[2, 8]", "[9]"});
  expect_usage_error(
      [] {
        add_rms_norm(randn({2, 8}), randn({1, 8}), randn({8}), 1e-5);
      },
      {"add_rms_norm:", "residual", "[1, 8]"});
}

}  // namespace
}  // namespace shardpipe::kernels
