#include <gtest/gtest.h>

#include "graph/fuzz.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "support/errors.h"

namespace shardpipe::graph {
namespace {

using test::draw;
using test::expect_error;

constexpr const char* kExample = R"(shardpipe-graph 1
dimension batch
dimension seq
input %0 "input_ids": int64[batch, seq]
parameter %1 "embed.weight" tied "head.weight": float32[32, 8]
buffer %2 "scale" content "0000803f00000040": float32[2]
state %3 "cache" per_sequence: float32[batch, 2*seq+1, 8]
module "embed" "Embedding"
module "layers.0" "Block"
#0 %4: float32[batch, seq, 8] = aten::embedding(%1, %0, -1, false, false) in "embed"
#1 %5: int = aten::sym_size.int(%0, 1) no_grad in ""
#2 %6: int = scalar::mul(%5, 2) in ""
#3 %7: float32[batch, seq, 4] %8: float32[batch, seq, 4] = aten::split.Tensor(%4, 4, 2) in "layers.0"
#5 %9: float32[batch, seq, 8] = aten::cat([%7, %8], -1) in "layers.0"
#4 %10: float32 = aten::view(%9, [-1, %5, 8]) in "layers.0"
#6 %11: float32[batch, seq, 8] = aten::full_like(%10, 1e-05, 6, none, device("cpu"), none, none) in "layers.0"
#7 %12: tensor = aten::einsum("bsh,oh->bso", [%11, %1], ints[]) in "layers.0"
output "logits" %12
output "count" %6
output "scale" %2
output "cache" %3
)";

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kExample;
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Parse, ExampleIsAFixedPoint) {
  const Graph graph = parse(kExample, "example");
  EXPECT_EQ(print(graph), kExample);
  EXPECT_NO_THROW(verify(graph, "parse"));
}

TEST(Parse, SaysWhereAndWhatItExpected) {
  struct Case {
    const char* from;
    const char* to;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"shardpipe-graph 1", "shardpipe-graph 2", "in file.txt, line 1, column 1: expected \"shardpipe-graph 1\""},
      {"input %0", "inputs %0", "line 4, column 6: expected \"%\""},
      {"dimension batch", "dimension", "line 2, column 10: expected a word"},
      {"embed.weight\" tied", "embed.weight\" bound", "line 5, column 29: expected \"content\""},
      {": float32[32, 8]", ": float33[32, 8]", "expected a dtype, not \"float33\""},
      {"[32, 8]", "[32, 8", "expected \"]\""},
      {"[32, 8]", "[32, 2x]", "expected a size, not \"2x\""},
      {"%5: int", "%x: int", "expected an integer of 64 bits"},
      {"%5: int", "%4: int", "expected %4 to be defined once"},
      {"%5: int", "%1000001: int", "expected an id from 0 to 1000000, not 1000001"},
      {"%5: int", "%-5: int", "expected an id from 0 to 1000000, not -5"},
      {"#2", "#4294967296", "expected an id from 0 to 2147483647, not 4294967296"},
      {"scalar::mul(%5", "scalar::mul(%6", "expected %6 to be defined before its use"},
      {"\"count\" %6", "\"count\" %60", "expected %60 to be defined before its use"},
      {"scalar::mul", "scalar::power", "expected a scalar operator, not scalar::power"},
      {"aten::cat", "aten::dog", "expected an operator, not aten::dog"},
      {"1e-05", "1.e.", "expected a number"},
      {"1e-05", "1e-05 6", "expected \")\""},
      {"1e-05", "complex(1, 2.0)", "expected a number with a point"},
      {"1e-05", "[[[[[[[[[[1]]]]]]]]]]", "expected lists in lists at most 8 deep"},
      {"1e-05", "talse", "expected \"false\""},
      {"device(\"cpu\")", "device(\"toaster\")", "expected a device, not \"toaster\""},
      {"\"scale\"", "\"sc\\xg0le\"", "expected two hexadecimal digits"},
      {"\"scale\"", "\"scale", "expected \""},
      {": float32[2]", ": float32[batch]", "expected dtype and numbers as the shape of a buffer with content"},
      {": float32[2]", ": tensor[2]", "expected dtype and numbers as the shape of a buffer with content"},
      {": float32[2]", ": float32[3]", "expected the content of a float32[3], not 16 digits"},
      {": float32[2]", ": float32[4611686018427387904, 8]",
       "expected the content of a float32[4611686018427387904, 8]"},
      {"803f", "80xf", "expected hexadecimal content"},
      {"\"0000803f00000040\": float32[2]", "\"\": float32[0, 4611686018427387904, 8]",
       "expected a shape that a tensor can have"},
      {"in \"layers.0\"\noutput", "in \"layers.0\" x\noutput", "expected the end of the line"},
      {"module \"embed\" \"Embedding\"", "", "line 8, column 1: expected \"output\""},
  };
  for (const Case& c : cases) {
    expect_error(ErrorCode::input, c.message, [&] { parse(replaced(c.from, c.to), "file.txt"); });
  }
  expect_error(ErrorCode::input, "line 1, column 1: expected \"shardpipe-graph 1\"", [] { parse("", "file.txt"); });
}

// Whatever the text, parse() gives a graph that prints and reads back, or an Error(input).
TEST(Parse, HostileTextIsRefused) {
  const std::vector<std::string> tokens = {
      "%",
      "[",
      "]",
      "\"",
      "\\x",
      ",",
      "#1 ",
      "ints[",
      "floats[",
      "bools[",
      "content \"00\"",
      "9223372036854775808",
      "-1",
      "*",
      "+",
      "e",
      ".",
      "inf",
      "nan",
      "none",
      "device(\"",
      "complex(",
      "\n",
      "input %9 \"x\": int8[3]\n",
      "tied \"\"",
      "scalar::",
      "aten::relu",
      "float32",
      "[-1]",
      "\xff",
      std::string(1, '\0'),
      "per_sequence",
      "true"};
  int accepted = 0;
  const int count = test::fuzz_count(20000);
  for (int seed = 0; seed < count; ++seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    std::string text = kExample;
    for (size_t edits = 1 + draw(random, 4); edits > 0; --edits) {
      const size_t at = draw(random, text.size());
      const size_t length = std::min(draw(random, 12), text.size() - at);
      switch (draw(random, 4)) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, length);
          break;
        case 2:
          text.insert(at, tokens[draw(random, tokens.size())]);
          break;
        default:
          text.insert(at, text.substr(draw(random, text.size()), length));
          break;
      }
      text += text.empty() ? "\n" : "";
    }
    try {
      const std::string printed = print(parse(text, "hostile"));
      ++accepted;
      EXPECT_EQ(print(parse(printed, "printed")), printed) << "seed " << seed;
      verify(parse(text, "hostile"), "parse");
    } catch (const Error& error) {
      const bool from_verify = error.message().starts_with("graph after parse");
      EXPECT_TRUE(error.code() == ErrorCode::input || from_verify) << "seed " << seed << ": " << error.what();
    } catch (const std::exception& error) {
      ADD_FAILURE() << "seed " << seed << ": " << error.what();
    }
  }
  EXPECT_GT(accepted, count / 100);  // else the mutations test one thing only
}

// Cost follows the length of the text.
TEST(Parse, LongTextTakesLinearTime) {
  std::string sizes = "shardpipe-graph 1\ninput %0 \"x\": int8[";
  for (int i = 0; i < 100'000; ++i) {
    sizes += fmt::format("a{}+", i);
  }
  EXPECT_EQ(parse(sizes + "1]\n", "long").values.at(0).shape->at(0).terms().size(), 100'001u);
  std::string factors = "shardpipe-graph 1\ninput %0 \"x\": int8[";
  for (int i = 0; i < 100'000; ++i) {
    factors += "a*";
  }
  EXPECT_EQ(parse(factors + "a]\n", "long").values.at(0).shape->at(0).terms().begin()->first.size(), 100'001u);
}

}  // namespace
}  // namespace shardpipe::graph
