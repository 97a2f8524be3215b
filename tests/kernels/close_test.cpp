// The tolerance library of tests/support: a comparison that passes everything would make every other test worthless.
#include "support/close.h"

#include <gmock/gmock.h>

namespace shardpipe::test {
namespace {

TEST(Close, AcceptsUpToTheBoundAndNoMore) {
  const at::Tensor expected = at::tensor({1.0, 2.0, 3.0}, at::kDouble);
  const at::Tensor bound = at::full({3}, 0.5, at::kDouble);
  EXPECT_TRUE(close(expected + 0.5, expected, bound));
  const auto result = close(expected + at::tensor({0.0, 0.75, 0.6}, at::kDouble), expected, bound);
  EXPECT_FALSE(result);
  EXPECT_THAT(result.message(), testing::HasSubstr("2 of 3 elements exceed"));
  EXPECT_THAT(result.message(), testing::HasSubstr("worst at [1]: 2.75 instead of 2"));
  EXPECT_THAT(result.message(), testing::HasSubstr("1.5 times the bound"));
}

TEST(Close, NamesTheIndexInEveryDimension) {
  at::Tensor actual = at::zeros({2, 3, 4});
  actual[1][2][3] = 1;
  EXPECT_THAT(close(actual, at::zeros({2, 3, 4}), at::zeros({1})).message(), testing::HasSubstr("[1, 2, 3]"));
}

TEST(Close, NotANumberAndInfinityMustMatch) {
  const double nan = std::nan("");
  const double inf = std::numeric_limits<double>::infinity();
  const at::Tensor bound = at::ones({1});
  const auto of = [](double value) { return at::full({1}, value, at::kDouble); };
  EXPECT_TRUE(close(of(nan), of(nan), bound));
  EXPECT_TRUE(close(of(inf), of(inf), bound));
  EXPECT_FALSE(close(of(nan), of(1), bound));
  EXPECT_FALSE(close(of(1), of(nan), bound));
  EXPECT_FALSE(close(of(-inf), of(inf), bound));
  EXPECT_FALSE(close(of(1), of(inf), bound));
}

TEST(Close, ShapesMustMatch) {
  EXPECT_THAT(
      close(at::zeros({2}), at::zeros({2, 1}), at::ones({1})).message(),
      testing::HasSubstr("shape [2], expected [2, 1]"));
}

TEST(Close, BitwiseEqualSeesTheSignOfZero) {
  EXPECT_TRUE(bitwise_equal(at::ones({2}), at::ones({2})));
  EXPECT_FALSE(bitwise_equal(at::zeros({2}), -at::zeros({2})));
  EXPECT_FALSE(bitwise_equal(at::zeros({2}), at::zeros({2}, at::kDouble)));
  EXPECT_THAT(
      bitwise_equal(at::tensor({1.0, 2.0}), at::tensor({1.0, 3.0})).message(),
      testing::HasSubstr("1 of 2 elements differ; the first at flat index 1: 2 instead of 3"));
}

// A product rounded at every step stays inside the bound; one with a term left out does not.
TEST(Close, DotBoundHoldsAndCatchesALostTerm) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({4, 300});
  const at::Tensor w = at::randn({5, 300});
  EXPECT_TRUE(close(at::linear(x, w), expected_linear(x, w)));
  EXPECT_FALSE(close(at::linear(x.narrow(1, 0, 299), w.narrow(1, 0, 299)), expected_linear(x, w)));
}

TEST(Close, UlpsAreThoseOfTheDtype) {
  EXPECT_DOUBLE_EQ(ulps(1.0 + std::ldexp(1.0, -23), 1.0, at::kFloat), 1.0);
  EXPECT_DOUBLE_EQ(ulps(4.0 + std::ldexp(1.0, -5), 4.0, at::kBFloat16), 1.0);
}

}  // namespace
}  // namespace shardpipe::test
