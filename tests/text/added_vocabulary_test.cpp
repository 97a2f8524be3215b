#include "text/added_vocabulary.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

using ::testing::ElementsAre;

Json with_added(const std::vector<Json>& list) {
  Json json = letters();
  json["added_tokens"] = list;
  return json;
}

TEST(AddedTokens, FindsTheLongestFromTheLeft) {
  const auto tokenizer = load(with_added({added("<a>"), added("<a><b>"), added("low")}));
  EXPECT_THAT(tokens(*tokenizer, "lo<a><b><a>lower"), ElementsAre("lo", "<a><b>", "<a>", "low", "er"));
}

TEST(AddedTokens, GetIdsBehindTheModelsUnlessItKnowsThem) {
  const auto tokenizer = load(with_added({added("<a>"), added("low"), added("<b>")}));
  EXPECT_EQ(tokenizer->token_to_id("<a>"), 12);
  EXPECT_EQ(tokenizer->token_to_id("low"), 8);
  EXPECT_EQ(tokenizer->token_to_id("<b>"), 13);
  EXPECT_EQ(tokenizer->token_to_id("<c>"), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), 14);
  EXPECT_EQ(tokenizer->id_to_token(13), "<b>");
  EXPECT_EQ(tokenizer->id_to_token(14), std::nullopt);
  EXPECT_EQ(tokenizer->id_to_token(-1), std::nullopt);
}

TEST(AddedTokens, SingleWordsHaveNoWordCharacterBesideThem) {
  const auto tokenizer = load(with_added({added("er", {{"single_word", true}})}));
  EXPECT_EQ(tokenizer->encode("ower").size(), 3U);
  const auto count = [&](const char* text) {
    const auto ids = tokenizer->encode(text);
    return std::count(ids.begin(), ids.end(), *tokenizer->token_to_id("er"));
  };
  EXPECT_EQ(count("er er-er\u3000er"), 4);
}

TEST(AddedTokens, StripTheSpaceBesideThem) {
  Json json = with_added({added("<m>", {{"lstrip", true}, {"rstrip", true}}), added("<n>", {{"lstrip", true}})});
  json["model"]["vocab"][" "] = 50;
  const auto tokenizer = load(json);
  EXPECT_THAT(tokens(*tokenizer, "l \n<m>\u3000 o <n> w"), ElementsAre("l", "<m>", "o", "<n>", " ", "w"));
  EXPECT_THAT(tokens(*tokenizer, "<m>  <n>"), ElementsAre("<m>", "<n>"));
}

TEST(AddedTokens, NormalizedOnesAreFoundInTheNormalizedText) {
  Json json = with_added({added("LOW", {{"normalized", true}}), added("ER")});
  json["normalizer"] = {{"type", "Lowercase"}};
  const auto tokenizer = load(json);
  // "LOW" is looked for as "low" (and decodes as that), "ER" as it is written, before anything is lowered.
  EXPECT_THAT(tokens(*tokenizer, "LowERer"), ElementsAre("low", "ER", "er"));
  EXPECT_EQ(tokenizer->encode("low"), (std::vector<int64_t>{12}));
}

TEST(AddedTokens, LaterFlagsWin) {
  Json json = with_added({added("<a>", {{"special", true}}), added("<a>", {{"lstrip", true}}), added("")});
  const auto tokenizer = load(json);
  EXPECT_EQ(tokenizer->vocab_size(), 13);
  EXPECT_EQ(tokenizer->encode(" <a>").size(), 1U);
  EXPECT_TRUE(tokenizer->is_special(12));  // once special, always special, as in the package
}

TEST(AddedTokens, SpecialOnesAreLeftOutWhenDecoding) {
  Json json = with_added({added("<a>", {{"special", true}}), added("<b>")});
  json["decoder"] = {{"type", "Fuse"}};
  const auto tokenizer = load(json);
  const std::vector<int64_t> ids = tokenizer->encode("<a>low<b>");
  EXPECT_EQ(tokenizer->decode(ids), "low<b>");
  EXPECT_EQ(tokenizer->decode(ids, false), "<a>low<b>");
  EXPECT_TRUE(tokenizer->is_special(12));
  EXPECT_FALSE(tokenizer->is_special(13) || tokenizer->is_special(0) || tokenizer->is_special(99));
}

TEST(AddedTokens, MayLookTheSameOrLikeNothingOnceNormalized) {
  Json same = with_added({added("LOW", {{"normalized", true}}), added("Low", {{"normalized", true}})});
  same["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_THAT(load(same)->encode("low"), ElementsAre(12));
  Json nothing = with_added({added(" ", {{"normalized", true}})});
  nothing["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}};
  EXPECT_THAT(tokens(*load(nothing), " low "), ElementsAre("low"));
}

TEST(AddedTokensErrors, Refuses) {
  for (const Json& id : {Json(-1), Json(1e20), Json("1"), Json(4294967296)}) {
    expect_error(ErrorCode::input, "added_tokens[0].id must be an integer from 0 to 4294967295", [&] {
      load(with_added({added("<a>", {{"id", id}})}));
    });
  }
  expect_error(ErrorCode::input, "added_tokens[0].content must be a string", [&] {
    load(with_added({added("<a>", {{"content", nullptr}})}));
  });
}

}  // namespace
}  // namespace shardpipe::text
