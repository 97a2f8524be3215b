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

TEST(NormalizerErrors, Refuses) {
  expect_error(ErrorCode::usage, "normalizer has the unsupported type \"Precompiled\"", [] {
    make_normalizer({{{"type", "Precompiled"}}, "normalizer"});
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
