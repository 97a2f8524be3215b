#include "text/bpe.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Bpe, MergesByRank) {
  const auto tokenizer = load(letters());
  EXPECT_THAT(tokens(*tokenizer, "lower"), ElementsAre("low", "er"));
  EXPECT_THAT(tokens(*tokenizer, "lowlo"), ElementsAre("low", "lo"));
  EXPECT_THAT(tokens(*tokenizer, "Ġlows"), ElementsAre("Ġlow", "s"));
  EXPECT_THAT(tokens(*tokenizer, ""), IsEmpty());
}

TEST(Bpe, TakesMergesAsStrings) {
  Json json = letters();
  json["model"]["merges"] = {"#version: 0.2", "l o", "lo w"};
  EXPECT_THAT(tokens(*load(json), "lower"), ElementsAre("low", "e", "r"));
}

TEST(Bpe, WithoutATypeMergesMakeItBpe) {
  Json json = letters();
  json["model"].erase("type");
  EXPECT_THAT(tokens(*load(json), "low"), ElementsAre("low"));
}

TEST(Bpe, DropsUnknownCharactersWithoutAnUnknownToken) {
  EXPECT_THAT(tokens(*load(letters()), "l?o"), ElementsAre("lo"));
}

TEST(Bpe, WritesOrFusesUnknownTokens) {
  Json json = letters();
  json["model"]["unk_token"] = "s";
  EXPECT_THAT(tokens(*load(json), "??l?"), ElementsAre("s", "s", "l", "s"));
  json["model"]["fuse_unk"] = true;
  EXPECT_THAT(tokens(*load(json), "??l?"), ElementsAre("s", "l", "s"));
}

TEST(Bpe, IgnoresMergesForWholeTokens) {
  Json json = letters();
  EXPECT_THAT(tokens(*load(json), "ower"), ElementsAre("o", "w", "er"));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(tokens(*load(json), "ower"), ElementsAre("ower"));
}

TEST(Bpe, FallsBackToBytes) {
  Json json = letters();
  json["model"]["vocab"]["<0xC3>"] = 100;
  json["model"]["vocab"]["<0xA9>"] = 101;
  json["model"]["byte_fallback"] = true;
  EXPECT_THAT(tokens(*load(json), "lé漢"), ElementsAre("l", "<0xC3>", "<0xA9>"));
}

TEST(Bpe, DecoratesCharactersByTheirPlace) {
  Json json = letters();
  json["model"]["continuing_subword_prefix"] = "##";
  json["model"]["end_of_word_suffix"] = "</w>";
  json["model"]["vocab"] = {{"l", 0}, {"##o", 1}, {"##w</w>", 2}, {"lo", 3}, {"low</w>", 4}};
  json["model"]["merges"] = {"l ##o", "lo ##w</w>"};
  EXPECT_THAT(tokens(*load(json), "low"), ElementsAre("low</w>"));
  EXPECT_THAT(tokens(*load(json), "lo"), ElementsAre("l"));
}

TEST(Bpe, MergesAMillionCharacters) {
  EXPECT_EQ(load(letters())->encode(std::string(500000, 'l') + std::string(500000, 'o')).size(), 999999U);
}

template <typename Value>
void refuses(ErrorCode code, const std::string& message, const char* field, Value value) {
  Json json = letters();
  json["model"][field] = value;
  expect_error(code, message, [&] { load(json); });
}

TEST(BpeErrors, Refuses) {
  refuses(ErrorCode::usage, "model.dropout is 0.1, only 0 is supported", "dropout", 0.1);
  refuses(ErrorCode::input, "model.dropout must be a number from 0 to 1, is 2", "dropout", 2);
  refuses(ErrorCode::input, "model.dropout must be a number from 0 to 1, is \"x\"", "dropout", "x");
  refuses(ErrorCode::input, "model.fuse_unk must be true or false, is 1", "fuse_unk", 1);
  refuses(ErrorCode::input, "model.unk_token must be a string, is 1", "unk_token", 1);
  refuses(ErrorCode::usage, "model has the unsupported type \"Magic\"", "type", "Magic");
  refuses(
      ErrorCode::input, "model.merges[0] needs the token \"x\", which is not in the vocabulary", "merges",
      Json::array({{"l", "x"}}));
  refuses(ErrorCode::input, "model.merges[0] needs the token \"ls\"", "merges", Json::array({{"l", "s"}}));
  refuses(ErrorCode::input, "shorter than continuing_subword_prefix", "continuing_subword_prefix", "####");
}

TEST(BpeErrors, NeedsBothTables) {
  for (const char* name : {"vocab", "merges"}) {
    Json json = letters();
    json["model"]["merges"] = Json::array();
    json["model"].erase(name);
    expect_error(ErrorCode::input, std::string("model has no ") + name, [&] { load(json); });
  }
}

TEST(BpeErrors, UnknownTokenOutsideOfTheVocabulary) {
  Json json = letters();
  json["model"]["unk_token"] = "<unk>";
  const auto tokenizer = load(json);
  EXPECT_EQ(tokenizer->encode("low").size(), 1U);
  expect_error(ErrorCode::input, "model.unk_token \"<unk>\" is not in the vocabulary, but the text needs it", [&] {
    tokenizer->encode("?");
  });
}

}  // namespace
}  // namespace shardpipe::text
