#include "text/pre_tokenizer.h"

#include "text/byte_level.h"
#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> split(const Json& json, const std::string& text) {
  std::vector<Piece> pieces = {{text}};
  make_pre_tokenizer({json, "pre_tokenizer"})->split(pieces);
  std::vector<std::string> out;
  for (const Piece& piece : pieces) {
    out.push_back(piece.text);
  }
  return out;
}

Json by_dash(const char* behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", invert}};
}

// The example of the package's documentation of SplitDelimiterBehavior.
TEST(PreTokenizer, SplitBehaviors) {
  const std::string text = "the-final--countdown";
  EXPECT_THAT(split(by_dash("Removed"), text), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(split(by_dash("Isolated"), text), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(split(by_dash("MergedWithPrevious"), text), ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(split(by_dash("MergedWithNext"), text), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(split(by_dash("Contiguous"), text), ElementsAre("the", "-", "final", "--", "countdown"));
  EXPECT_THAT(split(by_dash("Removed", true), text), ElementsAre("-", "-", "-"));
}

Json byte_level(bool prefix, bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

TEST(PreTokenizer, ByteLevel) {
  EXPECT_THAT(
      split(byte_level(false, true), "Hello my  friend's ok?\n"),
      ElementsAre("Hello", "Ġmy", "Ġ", "Ġfriend", "'s", "Ġok", "?", "Ċ"));
  EXPECT_THAT(split(byte_level(true, true), "a b"), ElementsAre("Ġa", "Ġb"));
  EXPECT_THAT(split(byte_level(true, true), " a"), ElementsAre("Ġa"));
  EXPECT_THAT(split(byte_level(true, false), "é b"), ElementsAre("ĠÃ©Ġb"));
  // use_regex is true where files leave it out
  EXPECT_THAT(
      split({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}}, "a b"),
      ElementsAre("a", "Ġb"));
}

TEST(PreTokenizer, ByteLevelAlphabetIsInvertible) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) {
    bytes.push_back(static_cast<char>(b));
  }
  EXPECT_EQ(chars_to_bytes(bytes_to_chars(bytes)), bytes);
  EXPECT_EQ(bytes_to_chars(std::string("\0 \xad", 3)), "ĀĠŃ");
  EXPECT_EQ(chars_to_bytes("Ġ漢"), "Ġ漢");  // a character that stands for no byte: all stays as it is
}

TEST(PreTokenizer, ByKindOfCharacter) {
  EXPECT_THAT(split({{"type", "Digits"}, {"individual_digits", true}}, "a12b"), ElementsAre("a", "1", "2", "b"));
  EXPECT_THAT(split({{"type", "Digits"}, {"individual_digits", false}}, "a12b"), ElementsAre("a", "12", "b"));
  EXPECT_THAT(split({{"type", "Whitespace"}}, "a-b \u200dc\n$$"), ElementsAre("a", "-", "b", "\u200dc", "$$"));
  EXPECT_THAT(split({{"type", "WhitespaceSplit"}}, " a-b  c\u3000"), ElementsAre("a-b", "c"));
  EXPECT_THAT(split({{"type", "Punctuation"}}, "a?!b"), ElementsAre("a", "?", "!", "b"));
  EXPECT_THAT(split({{"type", "Punctuation"}, {"behavior", "Contiguous"}}, "a?!b"), ElementsAre("a", "?!", "b"));
}

TEST(PreTokenizer, SequencesSkipAddedTokens) {
  const Json json = {
      {"type", "Sequence"}, {"pretokenizers", {{{"type", "WhitespaceSplit"}}, {{"type", "Punctuation"}}}}};
  std::vector<Piece> pieces = {{"a b?"}, {"", 7}, {"c d"}};
  make_pre_tokenizer({json, "x"})->split(pieces);
  ASSERT_EQ(pieces.size(), 6U);
  EXPECT_EQ(pieces[2].text, "?");
  EXPECT_EQ(pieces[3].id, 7);
}

TEST(PreTokenizer, Metaspace) {
  Json json = {{"type", "Metaspace"}, {"replacement", "▁"}};
  EXPECT_THAT(split(json, "a  b"), ElementsAre("▁a", "▁", "▁b"));
  json["split"] = false;
  EXPECT_THAT(split(json, "a  b"), ElementsAre("▁a▁▁b"));
  json["prepend_scheme"] = "never";
  EXPECT_THAT(split(json, "a b"), ElementsAre("a▁b"));
  json["prepend_scheme"] = "first";
  std::vector<Piece> pieces = {{"a", Piece::kText, true}, {"b"}};
  make_pre_tokenizer({json, "pre_tokenizer"})->split(pieces);
  EXPECT_EQ(pieces[0].text, "▁a");
  EXPECT_EQ(pieces[1].text, "b");
}

TEST(PreTokenizer, SimpleSplits) {
  EXPECT_THAT(split({{"type", "BertPreTokenizer"}}, " it's\u3000so"), ElementsAre("it", "'", "s", "so"));
  EXPECT_THAT(split({{"type", "CharDelimiterSplit"}, {"delimiter", "é"}}, "aébé"), ElementsAre("a", "b"));
  EXPECT_THAT(split({{"type", "FixedLength"}, {"length", 2}}, "aébcd"), ElementsAre("aé", "bc", "d"));
}

TEST(PreTokenizerErrors, Refuses) {
  expect_error(ErrorCode::usage, "pre_tokenizer has the unsupported type \"UnicodeScripts\"", [] {
    split({{"type", "UnicodeScripts"}}, "");
  });
  expect_error(ErrorCode::input, "pre_tokenizer.replacement must be one character, is \"ab\"", [] {
    split({{"type", "Metaspace"}, {"replacement", "ab"}}, "");
  });
  expect_error(ErrorCode::input, "pre_tokenizer.delimiter must be one character, is \"\"", [] {
    split({{"type", "CharDelimiterSplit"}, {"delimiter", ""}}, "");
  });
  expect_error(ErrorCode::input, "pre_tokenizer.length is 0, must be at least 1", [] {
    split({{"type", "FixedLength"}, {"length", 0}}, "");
  });
  expect_error(
      ErrorCode::input, "pre_tokenizer.behavior \"Chopped\" is unknown", [] { split(by_dash("Chopped"), ""); });
  expect_error(ErrorCode::input, "pre_tokenizer.type must be a string, is missing", [] { split({{"a", 1}}, ""); });
  expect_error(ErrorCode::input, "pre_tokenizer.trim_offsets must be true or false, is missing", [] {
    split({{"type", "ByteLevel"}, {"add_prefix_space", false}}, "");
  });
  expect_error(ErrorCode::input, "pre_tokenizer.pretokenizers must be an array", [] {
    split({{"type", "Sequence"}, {"pretokenizers", true}}, "");
  });
  expect_error(ErrorCode::input, "pre_tokenizer.pretokenizers must be given, is missing", [] {
    split({{"type", "Sequence"}}, "");
  });
  expect_error(ErrorCode::input, "pattern \"(\" does not compile, pre_tokenizer.pattern", [] {
    split({{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}, {"invert", false}}, "");
  });
}

}  // namespace
}  // namespace shardpipe::text
