#include "text/unicode.h"

#include "tokenizer_fixture.h"

// Which characters have which property is compared for all of them by tokenizer_reference; here are the borders.
namespace shardpipe::text {
namespace {

TEST(Unicode, GraphemeClusters) {
  EXPECT_EQ(cluster_end("e\u0301x", 0), 3U);
  EXPECT_EQ(cluster_end("\r\nx", 0), 2U);
  EXPECT_EQ(cluster_end("a\u1AEAx", 0), 4U);   // younger than utf8proc
  EXPECT_EQ(cluster_end("\t\u1AEAx", 0), 1U);  // nothing joins a control character
}

TEST(Unicode, KnowsWhitespace) {
  for (const char32_t c : {U'\t', U'\r', U' ', U'\x85', U'\xa0', U'\u1680', U'\u200a', U'\u2028', U'\u3000'}) {
    EXPECT_TRUE(is_whitespace(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {U'\x08', U'\x0e', U'\x1f', U'a', U'\u180e', U'\u200b', U'\ufeff'}) {
    EXPECT_FALSE(is_whitespace(c)) << static_cast<uint32_t>(c);
  }
}

TEST(Unicode, KnowsNumbersPunctuationAndMarks) {
  EXPECT_TRUE(is_numeric(U'7') && is_numeric(U'²') && is_numeric(U'Ⅷ') && is_numeric(U'٣'));
  EXPECT_FALSE(is_numeric(U'a') || is_numeric(U'一'));
  EXPECT_TRUE(is_punctuation(U'$') && is_punctuation(U'`') && is_punctuation(U'«') && is_punctuation(U'。'));
  EXPECT_FALSE(is_punctuation(U'a') || is_punctuation(U'€'));
  EXPECT_TRUE(is_combining_mark(U'\u0301') && is_combining_mark(U'\u093f'));
  EXPECT_FALSE(is_combining_mark(U'a'));
  EXPECT_FALSE(is_combining_mark(U'\u1df6'));  // younger than the crate
}

TEST(Unicode, LowersCharacterByCharacter) {
  EXPECT_EQ(lowercase("ÀΣ Straße ǅ"), "àσ straße ǆ");
  EXPECT_EQ(lowercase("İ"), "i\u0307");
  EXPECT_EQ(lowercase("\U00010D50"), "\U00010D70");  // Unicode 16
}

TEST(Unicode, Normalizes) {
  EXPECT_EQ(normalize("plain", NormalForm::nfkd), "plain");
  EXPECT_EQ(normalize("e\u0301 \u1100\u1161\u11a8", NormalForm::nfc), "é 각");
  EXPECT_EQ(normalize("é", NormalForm::nfd), "e\u0301");
  EXPECT_EQ(normalize("ﬁ①ｆ", NormalForm::nfkc), "fi1f");
  EXPECT_EQ(normalize("ﬁé", NormalForm::nfkd), "fie\u0301");
  EXPECT_EQ(normalize("a\u0323\u0307", NormalForm::nfc), "ạ\u0307");
  // Reiwa is younger than the crate: no decomposition, and nothing moves across it.
  EXPECT_EQ(normalize("\u32ffe\u0301", NormalForm::nfkc), "\u32ffé");
}

TEST(Unicode, RefusesToNormalizeWhatIsNoUtf8) {
  expect_error(ErrorCode::internal, "cannot normalize 2 bytes of text", [] { normalize("\xFF\xFF", NormalForm::nfc); });
}

TEST(Unicode, StandsInForYoungCharacters) {
  EXPECT_EQ(with_stand_ins("aé漢\U0001F600"), "");
  const std::string text = "a\U00031350b";  // CJK extension H, Unicode 15
  const std::string replaced = with_stand_ins(text);
  EXPECT_EQ(replaced.size(), text.size());
  EXPECT_EQ(replaced, "a\U00020000b");
}

}  // namespace
}  // namespace shardpipe::text
