#include "text/utf8.h"

#include <gtest/gtest.h>

namespace shardpipe::text {
namespace {

std::string lossy(std::string_view bytes, bool last = true) {
  std::string out;
  append_lossy(out, bytes, last);
  return out;
}

TEST(Utf8, EncodesAndDecodesEachLength) {
  for (const char32_t c :
       {U'\0', U'a', U'\x7f', U'\x80', U'\x7ff', U'\x800', U'\xffff', U'\U00010000', U'\U0010ffff'}) {
    std::string text = "x";
    append_utf8(text, c);
    EXPECT_EQ(code_point_at(text, 1), c);
    EXPECT_EQ(char_length(text[1]), text.size() - 1);
    EXPECT_EQ(last_char(text, text.size()), 1U);
  }
}

// Expected values: bytes.decode("utf-8", "replace") in Python.
TEST(Utf8, ReplacesEachMaximalInvalidPartAsPythonDoes) {
  EXPECT_EQ(lossy("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(lossy("\xF0\x9F\x98"), "\uFFFD");  // an emoji cut short is one part
  EXPECT_EQ(
      lossy("\xF0\x9F\x98"
            "a"),
      "\uFFFDa");
  EXPECT_EQ(lossy("\xE2\x82\xE2\x82\xAC"), "\uFFFD\u20AC");
  EXPECT_EQ(lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(lossy("\xC0\x80"), "\uFFFD\uFFFD");            // overlong
  EXPECT_EQ(lossy("\xE0\x80\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(lossy("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");  // above U+10FFFF
  EXPECT_EQ(lossy("\x80\xBF"), "\uFFFD\uFFFD");
}

TEST(Utf8, LeavesAnUnfinishedCharacterForLater) {
  std::string out;
  EXPECT_EQ(append_lossy(out, "a\xF0\x9F\x98", false), 1U);
  EXPECT_EQ(out, "a");
  EXPECT_EQ(append_lossy(out, "\xF0\x9F\x98\x80\xC3", false), 4U);
  EXPECT_EQ(out, "a\U0001F600");
}

TEST(Utf8, TellsValidFromInvalid) {
  EXPECT_TRUE(is_valid_utf8("aé€\U0001F600"));
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_FALSE(is_valid_utf8("\xC3"));
  EXPECT_FALSE(is_valid_utf8("\xED\xBF\xBF"));
}

}  // namespace
}  // namespace shardpipe::text
