#include "checkpoint/text.h"

#include <gtest/gtest.h>

namespace shardpipe::checkpoint {
namespace {

TEST(Text, QuotesHostileNames) {
  EXPECT_EQ(in_quotes("a.b"), "\"a.b\"");
  EXPECT_EQ(in_quotes(std::string_view("a\n\0\x7f", 4)), "\"a\\u000a\\u0000\\u007f\"");
  EXPECT_EQ(in_quotes("abcdef", 3), "\"abc...\"");
  EXPECT_EQ(in_quotes("a\u00e9\u00e9", 4), "\"a\u00e9...\"");  // never half a character
}

TEST(Text, ListsNamesAndShapes) {
  const std::vector<std::string> names = {"a", "b", "c"};
  EXPECT_EQ(list_text(names, 3), R"("a", "b", "c")");
  EXPECT_EQ(list_text(names, 1), R"("a", and 2 more)");
  EXPECT_EQ(shape_text(std::vector<int64_t>{2, 3}), "[2, 3]");
  EXPECT_EQ(shape_text({}), "[]");
}

TEST(Text, FindsTheNearestNames) {
  const std::vector<std::string> names = {"lm_head.weight", "model.norm.weight", "model.norms.weight", "x"};
  EXPECT_EQ(nearest_names("model.norm.weigth", names, 2), (std::vector<std::string>{names[1], names[2]}));
  EXPECT_EQ(nearest_names("y", names, 1), (std::vector<std::string>{"x"}));
  EXPECT_TRUE(nearest_names("y", {}).empty());
}

}  // namespace
}  // namespace shardpipe::checkpoint
