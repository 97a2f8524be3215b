#include "text/normalizer.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

std::string normalized(const Json& json, std::string text) {
  make_normalizer({json, "normalizer"})->normalize(text);
  return text;
}

TEST(Normalizer, ByType) {
  EXPECT_EQ(normalized({{"type", "NFC"}}, "e\u0301"), "é");
  EXPECT_EQ(normalized({{"type", "NFD"}}, "é"), "e\u0301");
  EXPECT_EQ(normalized({{"type", "NFKC"}}, "ﬁ"), "fi");
  EXPECT_EQ(normalized({{"type", "NFKD"}}, "①é"), "1e\u0301");
  EXPECT_EQ(normalized({{"type", "Lowercase"}}, "AÉ"), "aé");
  EXPECT_EQ(normalized({{"type", "StripAccents"}}, "e\u0301a"), "ea");
  EXPECT_EQ(normalized({{"type", "ByteLevel"}}, " é"), "ĠÃ©");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "▁"}}, "a"), "▁a");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "▁"}}, ""), "");
}

TEST(Normalizer, ReplacesTextsAndPatterns) {
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"String", "."}}}, {"content", "!"}}, "a.b"), "a!b");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"Regex", "."}}}, {"content", "!"}}, "a.b"), "!!!");
}

TEST(Normalizer, StripsTheSidesAsked) {
  const auto strip = [](bool left, bool right) {
    return normalized({{"type", "Strip"}, {"strip_left", left}, {"strip_right", right}}, "\u3000 a b \n");
  };
  EXPECT_EQ(strip(true, true), "a b");
  EXPECT_EQ(strip(true, false), "a b \n");
  EXPECT_EQ(strip(false, true), "\u3000 a b");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \u2003 "), "");
}

TEST(Normalizer, SequencesRunInOrder) {
  const Json prepend = {{"type", "Prepend"}, {"prepend", "X"}};
  EXPECT_EQ(normalized({{"type", "Sequence"}, {"normalizers", {prepend, {{"type", "Lowercase"}}}}}, "A"), "xa");
}

Json bert(const Json& strip_accents, bool lowercase) {
  return {
      {"type", "BertNormalizer"},
      {"clean_text", true},
      {"handle_chinese_chars", true},
      {"strip_accents", strip_accents},
      {"lowercase", lowercase}};
}

TEST(Normalizer, Bert) {
  EXPECT_EQ(normalized(bert(nullptr, true), "A\x01\tÉ中"), "a e 中 ");
  EXPECT_EQ(normalized(bert(nullptr, false), "É"), "É");
  EXPECT_EQ(normalized(bert(true, false), "É"), "E");
  EXPECT_EQ(normalized({{"type", "Nmt"}}, "a\x01\tb\u200B"), "a b ");
}

// BPE's neighbours of a text ask whether it begins where the whole text does.
TEST(Normalizer, SaysWhetherTheStartStays) {
  const auto keeps = [](const Json& json, std::string text) { return make_normalizer({json, "n"})->normalize(text); };
  const Json strip = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}};
  EXPECT_FALSE(keeps(strip, " a"));
  EXPECT_TRUE(keeps(strip, "a "));
  EXPECT_FALSE(keeps(
      bert(nullptr, true),
      "\x01"
      "a"));
  EXPECT_FALSE(keeps({{"type", "StripAccents"}}, "\u0301a"));
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", "ab"}}}, {"content", "x"}};
  EXPECT_FALSE(keeps(replace, "abc"));
  EXPECT_TRUE(keeps(replace, "cab"));
}

TEST(NormalizerErrors, Refuses) {
  expect_error(ErrorCode::usage, "normalizer has the unsupported type \"Magic\"", [] {
    make_normalizer({{{"type", "Magic"}}, "normalizer"});
  });
  expect_error(ErrorCode::input, "normalizer.lowercase must be true or false, is missing", [] {
    make_normalizer({{{"type", "BertNormalizer"}, {"clean_text", true}, {"handle_chinese_chars", true}}, "normalizer"});
  });
  expect_error(ErrorCode::input, "normalizer.prepend must be a string, is 3", [] {
    make_normalizer({{{"type", "Prepend"}, {"prepend", 3}}, "normalizer"});
  });
  expect_error(ErrorCode::input, "normalizer.normalizers[1] must be an object, is string", [] {
    const Json list = {{{"type", "NFC"}}, "NFC"};
    make_normalizer({{{"type", "Sequence"}, {"normalizers", list}}, "normalizer"});
  });
}

}  // namespace
}  // namespace shardpipe::text
