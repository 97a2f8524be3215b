#include "graph/size.h"

#include <gtest/gtest.h>

#include <limits>

#include "graph/fuzz.h"
#include "support/errors.h"

namespace shardpipe::graph {
namespace {

using test::draw;
using test::expect_error;

TEST(Size, WritesSymbolsBeforeNumbers) {
  const Size tokens = Size::symbol("tokens");
  EXPECT_EQ(Size(64).str(), "64");
  EXPECT_EQ(Size(0).str(), "0");
  EXPECT_EQ((Size(2) * tokens + Size(1)).str(), "2*tokens+1");
  EXPECT_EQ((Size::symbol("seq") * Size::symbol("batch")).str(), "batch*seq");
  EXPECT_EQ((Size(-3) + Size(-1) * tokens).str(), "-1*tokens-3");
  EXPECT_EQ(to_string(Shape{tokens, 576}), "[tokens, 576]");
  EXPECT_EQ(to_string(Shape{}), "[]");
}

TEST(Size, ReadsWhatAPersonWrites) {
  const Size tokens = Size::symbol("tokens");
  EXPECT_EQ(Size::parse("1+tokens*2"), Size(2) * tokens + Size(1));
  EXPECT_EQ(Size::parse("-tokens"), Size(-1) * tokens);
  EXPECT_EQ(Size::parse("seq*batch"), Size::parse("batch*seq"));
  EXPECT_EQ(Size::parse("tokens-tokens"), Size(0));
  EXPECT_EQ(Size::parse("3*0"), Size(0));
}

TEST(Size, CancelsToAConstant) {
  const Size tokens = Size::symbol("tokens");
  const Size four = tokens + Size(4) + Size(-1) * tokens;
  EXPECT_TRUE(four.is_constant());
  EXPECT_EQ(four.constant(), 4);
  EXPECT_FALSE(tokens.is_constant());
  EXPECT_EQ((tokens * Size(0)).constant(), 0);
}

TEST(Size, NamesItsErrors) {
  const Size tokens = Size::symbol("tokens");
  expect_error(ErrorCode::internal, "size 2*tokens is not a number", [&] { (Size(2) * tokens).constant(); });
  expect_error(ErrorCode::internal, "dimension tokens of size tokens has no value", [&] {
    tokens.evaluate({{"t", 1}});
  });
  expect_error(ErrorCode::input, "\"a b\" is not the name of a dimension", [] { Size::symbol("a b"); });
  expect_error(ErrorCode::input, "\"\" is not the name of a dimension", [] { Size::symbol(""); });
  expect_error(ErrorCode::input, "\"2x\" is not the name of a dimension", [] { Size::symbol("2x"); });
  for (const char* text :
       {"", "+", "+1", "-", "1+", "*2", "2*", "2**3", "1 + 2", "--1", "2x", "x.y", "tokens/2", "99999999999999999999",
        "9223372036854775808"}) {
    expect_error(ErrorCode::input, "is not a size such as", [&] { Size::parse(text); });
  }
}

TEST(Size, RefusesNumbersAbove64Bits) {
  const int64_t large = std::numeric_limits<int64_t>::max();
  const Size x = Size::symbol("x");
  expect_error(ErrorCode::input, "larger than 64 bits hold: 9223372036854775807 + 1", [&] { Size(large) + Size(1); });
  expect_error(ErrorCode::input, "larger than 64 bits hold: 9223372036854775807 * 2", [&] { Size(large) * Size(2); });
  expect_error(ErrorCode::input, "larger than 64 bits", [&] { (x * x).evaluate({{"x", large}}); });
  expect_error(ErrorCode::input, "larger than 64 bits", [&] { (x + Size(1)).evaluate({{"x", large}}); });
  const Size smallest(std::numeric_limits<int64_t>::min());
  EXPECT_EQ(Size::parse(smallest.str()), smallest);
}

// A random polynomial beside the same computation on numbers.
struct Random {
  explicit Random(unsigned seed) : random(seed) {}

  std::pair<Size, int64_t> make(int depth) {
    const size_t kind = draw(random, depth == 0 ? 2 : 4);
    if (kind == 0) {
      const int64_t number = static_cast<int64_t>(draw(random, 15)) - 7;
      return {Size(number), number};
    }
    if (kind == 1) {
      const auto at = std::next(dimensions.begin(), static_cast<int64_t>(draw(random, dimensions.size())));
      return {Size::symbol(at->first), at->second};
    }
    const auto [a, x] = make(depth - 1);
    const auto [b, y] = make(depth - 1);
    return kind == 2 ? std::pair(a + b, x + y) : std::pair(a * b, x * y);
  }

  std::mt19937 random;
  Dimensions dimensions = {{"batch", 3}, {"n_1", -2}, {"seq", 5}};
};

TEST(Size, PolynomialsComputeAndRoundTrip) {
  for (int seed = 0; seed < test::fuzz_count(2000); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(static_cast<unsigned>(seed));
    const auto [size, number] = random.make(4);
    EXPECT_EQ(size.evaluate(random.dimensions), number) << size.str();
    EXPECT_EQ(Size::parse(size.str()), size) << size.str();
    for (const auto& [names, coefficient] : size.terms()) {
      EXPECT_NE(coefficient, 0);
      EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
    }
    for (const std::string& name : size.symbols()) {
      EXPECT_EQ(random.dimensions.count(name), 1u);
    }
    EXPECT_EQ(evaluate(Shape{size, 2}, random.dimensions), (std::vector<int64_t>{number, 2}));
  }
}

}  // namespace
}  // namespace shardpipe::graph
