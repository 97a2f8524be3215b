#include "graph/scalar.h"

#include <cmath>
#include <limits>

#include "support/errors.h"

namespace shardpipe::graph {
namespace {

using test::expect_error;
using Op = ScalarOperator;

c10::IValue of(Op op, std::vector<c10::IValue> arguments) {
  return compute(op, arguments);
}

int64_t integer(Op op, std::vector<c10::IValue> arguments) {
  return compute(op, arguments).toInt();
}

constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// The right sides are what Python prints.
TEST(Scalar, HasPythonsSemantics) {
  EXPECT_EQ(integer(Op::add, {7, true}), 8);
  EXPECT_EQ(integer(Op::floordiv, {-7, 2}), -4);
  EXPECT_EQ(integer(Op::mod, {-7, 3}), 2);
  EXPECT_EQ(integer(Op::mod, {kMin, -1}), 0);
  EXPECT_EQ(of(Op::floordiv, {-7.5, 2}).toDouble(), -4.0);
  EXPECT_EQ(of(Op::mod, {-7.5, 2}).toDouble(), 0.5);
  EXPECT_EQ(of(Op::mod, {7.5, -2}).toDouble(), -0.5);
  EXPECT_TRUE(std::signbit(of(Op::mod, {4.0, -2.0}).toDouble()));
  EXPECT_EQ(of(Op::truediv, {7, 2}).toDouble(), 3.5);
  EXPECT_EQ(integer(Op::pow, {3, 4}), 81);
  EXPECT_EQ(integer(Op::pow, {kMin, 1}), kMin);
  EXPECT_EQ(integer(Op::pow, {-2, 63}), kMin);
  EXPECT_EQ(integer(Op::pow, {0, 0}), 1);
  EXPECT_EQ(of(Op::pow, {2, -1}).toDouble(), 0.5);
  EXPECT_EQ(of(Op::pow, {2, 0.5}).toDouble(), std::sqrt(2.0));
  EXPECT_EQ(integer(Op::min, {3, 2}), 2);
  EXPECT_EQ(of(Op::max, {3, 2.5}).toDouble(), 3.0);
  EXPECT_TRUE(of(Op::eq, {2, 2.0}).toBool());
  EXPECT_TRUE(of(Op::ne, {2, 3}).toBool());
  EXPECT_TRUE(of(Op::lt, {2, 3}).toBool());
  EXPECT_FALSE(of(Op::le, {3.5, 3}).toBool());
  EXPECT_TRUE(of(Op::gt, {kMax, kMax - 1}).toBool());
  EXPECT_TRUE(of(Op::ge, {3, 3}).toBool());
  EXPECT_FALSE(of(Op::logical_and, {true, false}).toBool());
  EXPECT_TRUE(of(Op::logical_or, {true, false}).toBool());
  EXPECT_TRUE(of(Op::logical_not, {0}).toBool());
  EXPECT_EQ(integer(Op::neg, {5}), -5);
  EXPECT_EQ(of(Op::neg, {0.5}).toDouble(), -0.5);
  EXPECT_EQ(integer(Op::absolute, {-5}), 5);
  EXPECT_EQ(of(Op::absolute, {-0.5}).toDouble(), 0.5);
  EXPECT_EQ(integer(Op::trunc, {-2.7}), -2);
  EXPECT_EQ(integer(Op::floor, {-2.1}), -3);
  EXPECT_EQ(integer(Op::ceil, {2.1}), 3);
  EXPECT_EQ(integer(Op::round, {2.5}), 2);
  EXPECT_EQ(integer(Op::trunc, {4}), 4);
  EXPECT_EQ(of(Op::sqrt, {9}).toDouble(), 3.0);
  EXPECT_EQ(of(Op::to_float, {true}).toDouble(), 1.0);
  EXPECT_EQ(integer(Op::same, {4}), 4);
  EXPECT_EQ(integer(Op::choose, {false, 1, 2}), 2);
}

TEST(Scalar, RefusesWhatHasNoAnswer) {
  const auto refused = [](Op op, std::vector<c10::IValue> arguments, const std::string& part) {
    expect_error(ErrorCode::internal, part, [&] { compute(op, arguments); });
  };
  refused(Op::floordiv, {3, 0}, "division of 3 by zero");
  refused(Op::truediv, {3, 0}, "division of 3 by zero");
  refused(Op::mul, {kMax, 2}, "mul of 9223372036854775807 and 2 exceeds 64 bits");
  refused(Op::floordiv, {kMin, -1}, "exceeds 64 bits");
  refused(Op::pow, {10, 19}, "exceeds 64 bits");
  refused(Op::neg, {kMin}, "exceeds 64 bits");
  refused(Op::trunc, {1e300}, "exceeds 64 bits");
  refused(Op::floor, {std::nan("")}, "exceeds 64 bits");
  refused(Op::sqrt, {-1}, "square root of -1");
  refused(Op::add, {"a", 1}, "add of a String, which is no number");
  refused(Op::add, {1}, "with 1 arguments for add");
  refused(Op::none, {1}, "a node without an operator");
}

TEST(Scalar, EveryOperatorHasAName) {
  for (int i = static_cast<int>(Op::none) + 1; i <= static_cast<int>(Op::choose); ++i) {
    const auto op = static_cast<Op>(i);
    EXPECT_EQ(parse_scalar_operator(to_string(op)), op);
    EXPECT_GE(num_arguments(op), 1u);
  }
  EXPECT_EQ(num_arguments(Op::none), 0u);
}

}  // namespace
}  // namespace shardpipe::graph
