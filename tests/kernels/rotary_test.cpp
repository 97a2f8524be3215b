#include "each_simd_level.h"
#include "kernels/ops.h"
#include "kernels/reference.h"

namespace shardpipe::kernels {
namespace {

using test::bitwise_equal;
using test::close;

struct Tables {
  at::Tensor cos;
  at::Tensor sin;
};

Tables tables(int64_t tokens, int64_t rotary_dim) {
  const at::Tensor exponents = at::arange(0, rotary_dim, 2, at::kFloat) / static_cast<double>(rotary_dim);
  const at::Tensor angles = at::outer(at::arange(3, 3 + tokens, at::kFloat), at::pow(10000.0, -exponents));
  return {angles.cos(), angles.sin()};
}

TEST(Rotary, EqualsTheReferenceBitByBit) {
  at_each_simd_level([] {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (const auto& [head_dim, rotary_dim] : std::vector<std::pair<int64_t, int64_t>>{
               {64, 64}, {2, 2}, {10, 6}, {80, 32}, {66, 66}, {128, 128}, {7, 0}}) {
        SCOPED_TRACE(fmt::format("{} of {} {}", rotary_dim, head_dim, c10::toString(dtype)));
        const auto [cos, sin] = tables(11, rotary_dim);
        const at::Tensor x = randn({11, 3, head_dim}, dtype);
        EXPECT_TRUE(bitwise_equal(rotary(x, cos, sin), rotary_reference(x, cos, sin)));
        const at::Tensor packed = randn({11, 3, 3 * head_dim}, dtype).narrow(2, head_dim, head_dim);
        EXPECT_TRUE(bitwise_equal(rotary(packed, cos, sin), rotary_reference(packed, cos, sin)));
        const at::Tensor columns = randn({head_dim, 3, 11}, dtype).permute({2, 1, 0});
        EXPECT_TRUE(bitwise_equal(rotary(columns, cos, sin), rotary_reference(columns, cos, sin)));
        const at::Tensor batch = randn({2, 11, 3, head_dim + 3}, dtype).narrow(3, 1, head_dim);
        const at::Tensor turned = rotary(batch, cos, sin);
        EXPECT_TRUE(bitwise_equal(turned, rotary_reference(batch, cos, sin)));
        EXPECT_TRUE(bitwise_equal(turned[1], rotary(batch[1], cos, sin)));
      }
    }
  });
}

// The reference itself, against complex multiplication in float64: element i and i + half are one complex number.
TEST(Rotary, ReferenceTurnsComplexNumbers) {
  const auto [cos, sin] = tables(9, 12);
  const at::Tensor x = randn({9, 2, 16});
  const at::Tensor x64 = x.to(at::kDouble);
  const at::Tensor turned = at::complex(x64.narrow(2, 0, 6), x64.narrow(2, 6, 6)) *
                            at::complex(cos.to(at::kDouble), sin.to(at::kDouble)).unsqueeze(1);
  const at::Tensor value = at::cat({at::real(turned), at::imag(turned), x64.narrow(2, 12, 4)}, 2);
  const at::Tensor size = at::cat({turned.abs(), turned.abs(), x64.narrow(2, 12, 4).abs()}, 2);
  EXPECT_TRUE(close(rotary_reference(x, cos, sin), value, 2 * test::rounding_bound(size, 2, at::kFloat)));
}

TEST(Rotary, ReferenceIsDifferentiable) {
  const auto [cos, sin] = tables(2, 8);
  const at::Tensor x = randn({2, 1, 8}).requires_grad_();
  rotary_reference(x, cos, sin).sum().backward();
  EXPECT_TRUE(x.grad().defined());
}

TEST(Rotary, OtherDtypesRunTheReference) {
  const auto [cos, sin] = tables(4, 8);
  const at::Tensor x = randn({4, 2, 8}, at::kHalf);
  EXPECT_TRUE(bitwise_equal(rotary(x, cos, sin), rotary_reference(x, cos, sin)));
}

TEST(RotaryErrors, NameTheShapes) {
  const auto [cos, sin] = tables(4, 8);
  expect_usage_error([&] { rotary(randn({4, 2, 6}), cos, sin); }, {"rotary:", "[4, 2, 6]", "[4, 4]", "rotary_dim"});
  expect_usage_error([&] { rotary(randn({5, 2, 8}), cos, sin); }, {"rotary:", "[5, 2, 8]"});
  expect_usage_error([&] { rotary(randn({4, 2, 8}), cos.to(at::kHalf), sin); }, {"float32", "float16"});
}

}  // namespace
}  // namespace shardpipe::kernels
