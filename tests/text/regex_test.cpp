#include "text/regex.h"

#include "text/onig_pattern.h"
#include "text/pattern_field.h"
#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  std::vector<std::string> out;
  for (const Segment& s : Regex::pattern(pattern, "a test").segments(text)) {
    if (s.match) {
      out.emplace_back(text.substr(s.begin, s.end - s.begin));
    }
  }
  return out;
}

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Regex, SegmentsCoverTheText) {
  const std::vector<Segment> found = Regex::pattern("b+", "a test").segments("abbcb");
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[1].begin, 1U);
  EXPECT_EQ(found[1].end, 3U);
  EXPECT_TRUE(found[1].match && !found[2].match && found[3].match);
  EXPECT_EQ(Regex::pattern("b", "a test").segments("").size(), 1U);
}

TEST(Regex, EmptyMatchesFollowOnlyUnmatchedText) {
  // As the onig crate iterates: none at 3, right behind "xx".
  EXPECT_THAT(matches("x*", "axxb"), ElementsAre("", "xx", ""));
}

TEST(Regex, TakesLiteralsLiterally) {
  const std::vector<Segment> found = Regex::literal("a.*[").segments("xa.*[y");
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[1].end, 5U);
  EXPECT_TRUE(Regex::literal("\u1c89").segments("\u1c89")[0].match);  // younger than PCRE2's Unicode
}

TEST(Regex, ReplacesAll) {
  EXPECT_EQ(replace_all(Regex::pattern(R"(\s+)", "a test"), " a  b ", "_"), "_a_b_");
}

TEST(Regex, FindsRunsOfAMillion) {
  const std::string text = std::string(1000000, ' ') + "x";
  EXPECT_EQ(matches(R"(\s+(?!\S)|\s+)", text).size(), 2U);
  EXPECT_EQ(matches(R"((?:a|b)+)", std::string(1000000, 'a')).size(), 1U);
}

// Seen with random normalizers: a class has no superscripts and fractions among its word characters.
TEST(Regex, WordsOutsideAndInsideOfClasses) {
  EXPECT_THAT(matches(R"(\w)", "²a¼"), ElementsAre("²", "a", "¼"));
  EXPECT_THAT(matches(R"(\W)", "²-"), ElementsAre("-"));
  EXPECT_THAT(matches(R"([\w])", "²a¼"), ElementsAre("a"));
  EXPECT_THAT(matches(R"([^\w\s])", "² a"), ElementsAre("²"));
  EXPECT_THAT(matches(R"([[:word:]])", "²a"), ElementsAre("a"));
  EXPECT_THAT(matches(R"(\p{Word})", "²a"), ElementsAre("²", "a"));
  EXPECT_EQ(matches(R"(\b)", "²").size(), 2U);
}

TEST(Regex, HasOnigurumasShorthands) {
  EXPECT_THAT(matches(R"(\h+)", "0aFg \t"), ElementsAre("0aF"));  // hexadecimal digits, not blanks
  EXPECT_THAT(matches(R"(\H)", "0g"), ElementsAre("g"));
  EXPECT_THAT(matches(R"(\s)", "\u180e\u200b\u0085\x1f\u3000"), ElementsAre("\u0085", "\u3000"));
  EXPECT_THAT(matches(R"([\S])", "a \u180e"), ElementsAre("a", "\u180e"));
  EXPECT_THAT(matches(R"(\w+)", "aé_\u0301²1-٣"), ElementsAre("aé_\u0301²1", "٣"));
  EXPECT_THAT(matches(R"(\W)", "a-½"), ElementsAre("-"));
  EXPECT_THAT(matches(R"(\bb\B.)", "b bc"), ElementsAre("bc"));
  EXPECT_THAT(matches(R"(\v)", "\n\v"), ElementsAre("\v"));  // one character, not all line ends
  EXPECT_THAT(matches(R"(\u00e9|\x{4e2d})", "é中"), ElementsAre("é", "中"));
  EXPECT_THAT(matches(R"(\Q.\E)", "QxE"), ElementsAre("QxE"));
  EXPECT_THAT(matches("\\é", "é"), ElementsAre("é"));
}

TEST(Regex, HasOnigurumasClasses) {
  EXPECT_THAT(matches(R"([a-c&&[^b]]+)", "abca"), ElementsAre("a", "ca"));
  EXPECT_THAT(matches(R"([^a-c&&[^b]]+)", "abcx"), ElementsAre("b", "x"));
  EXPECT_THAT(matches(R"([x[yz]]+)", "axyz"), ElementsAre("xyz"));
  EXPECT_THAT(matches(R"([[:alpha:]]+)", "ab1"), ElementsAre("ab"));
  EXPECT_THAT(matches(R"([[:^alpha:]\W]+)", "ab1-"), ElementsAre("1-"));
  EXPECT_THAT(matches(R"([]a]+)", "]a["), ElementsAre("]a"));
  EXPECT_THAT(matches(R"([\[:a]+)", "[:a"), ElementsAre("[:a"));
  EXPECT_THAT(matches(R"([a&&b])", "ab"), IsEmpty());
}

TEST(Regex, HasOnigurumasProperties) {
  EXPECT_THAT(matches(R"(\p{Letter}+)", "aé1"), ElementsAre("aé"));
  EXPECT_THAT(matches(R"(\p{^L}+)", "a1"), ElementsAre("1"));
  EXPECT_THAT(matches(R"(\P{White_Space}+)", "a b"), ElementsAre("a", "b"));
  EXPECT_THAT(matches(R"(\p{Han}+)", "漢、字"), ElementsAre("漢", "字"));  // the script, not its extensions
  EXPECT_THAT(matches(R"(\p{Alpha}\p{^Alpha})", "a1"), ElementsAre("a1"));
}

TEST(Regex, HasOnigurumasRepeats) {
  EXPECT_THAT(matches(R"(a{1,2}+b)", "aaaab"), ElementsAre("aaaab"));  // repeated, not possessive
  EXPECT_THAT(matches(R"((?:ab){2}?c)", "cababc"), ElementsAre("c", "ababc"));
  EXPECT_THAT(matches(R"(a{,2}b)", "aaab"), ElementsAre("aab"));
  EXPECT_THAT(matches(R"(a{,}b|x{)", "a{,}bx{"), ElementsAre("a{,}b", "x{"));
  EXPECT_THAT(matches(R"(a++a|[b]{2,3}?)", "aaabbb"), ElementsAre("bb"));
}

TEST(Regex, HasRubysOptionsAndAnchors) {
  EXPECT_THAT(matches(R"((?m:a.b))", "a\nb"), ElementsAre("a\nb"));
  EXPECT_THAT(matches(R"(a.b)", "a\nb"), IsEmpty());
  EXPECT_THAT(matches(R"((?i)'S|(?i:x)y)", "'s XyxY"), ElementsAre("'s", "Xy", "xY"));
  EXPECT_THAT(matches(R"(^a$)", "a\nb\na"), ElementsAre("a", "a"));  // lines
}

TEST(Regex, CountsYoungCharactersAsWhatTheyAre) {
  EXPECT_THAT(matches(R"(\p{L}+)", "a\U00031350\u1c89"), ElementsAre("a\U00031350\u1c89"));
  EXPECT_THAT(matches(R"(\p{N}+)", "1\U00010d41"), ElementsAre("1\U00010d41"));
}

TEST(RegexErrors, PatternsThatAreNone) {
  expect_error(ErrorCode::input, "does not compile, a test: ", [] { Regex::pattern("(", "a test"); });
  expect_error(ErrorCode::input, "character class that does not end", [] { pcre2_pattern("a[b"); });
  expect_error(
      ErrorCode::input, "nests character classes deeper than 100", [] { pcre2_pattern(std::string(200, '[')); });
  expect_error(ErrorCode::input, "does not compile", [] { Regex::pattern(std::string(5000, '('), "a test"); });
}

TEST(RegexErrors, PatternsThatGiveUp) {
  const Regex regex = Regex::pattern("(?:(?:a|aa)+)+[bc]d", "a test");
  expect_error(
      ErrorCode::usage, "gives up on a text of 65 bytes", [&] { regex.segments(std::string(62, 'a') + "bed"); });
}

TEST(RegexErrors, FieldsThatHoldNoPattern) {
  const Json json = {{"pattern", {{"Glob", "*"}}}};
  expect_error(ErrorCode::input, "x.pattern must hold \"String\" or \"Regex\"", [&] { pattern_field({json, "x"}); });
}

}  // namespace
}  // namespace shardpipe::text
