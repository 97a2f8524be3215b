#include "text/model.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

using ::testing::ElementsAre;

Json file(const Json& model) {
  return {{"version", "1.0"}, {"added_tokens", Json::array()}, {"model", model}};
}

Json word_piece() {
  return {
      {"type", "WordPiece"},
      {"unk_token", "[UNK]"},
      {"continuing_subword_prefix", "##"},
      {"max_input_chars_per_word", 6},
      {"vocab", {{"[UNK]", 0}, {"un", 1}, {"##aff", 2}, {"##able", 3}, {"##é", 4}, {"u", 5}}}};
}

Json unigram() {
  Json json = {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", Json::array()}};
  for (const auto& [token, score] :
       {std::pair("<unk>", 0.0),
        {"a", 0.0},
        {"b", 0.0},
        {"c", 0.0},
        {"d", 0.0},
        {"cd", 1.0},
        {"ab", 2.0},
        {"abc", 5.0},
        {"abcd", 10.0}}) {
    json["vocab"].push_back({token, score});
  }
  return json;
}

TEST(WordPiece, TakesTheLongestToken) {
  const auto tokenizer = load(file(word_piece()));
  EXPECT_THAT(tokens(*tokenizer, "unaff"), ElementsAre("un", "##aff"));
  EXPECT_THAT(tokens(*tokenizer, "uné"), ElementsAre("un", "##é"));
  EXPECT_THAT(tokens(*tokenizer, "unx"), ElementsAre("[UNK]"));
  EXPECT_THAT(tokens(*tokenizer, "unaffé"), ElementsAre("un", "##aff", "##é"));
  EXPECT_THAT(tokens(*tokenizer, "unafféé"), ElementsAre("[UNK]"));  // seven characters
}

// The example of the package's models/unigram/model.rs.
TEST(Unigram, TakesTheBestSum) {
  const auto tokenizer = load(file(unigram()));
  EXPECT_THAT(tokenizer->encode("abcdacdxx"), ElementsAre(8, 1, 5, 0));
  EXPECT_EQ(tokenizer->vocab_size(), 9);
  EXPECT_EQ(tokenizer->id_to_token(9), std::nullopt);
  EXPECT_EQ(tokenizer->id_to_token(-1), std::nullopt);
}

TEST(Unigram, FallsBackToBytes) {
  Json json = unigram();
  json["byte_fallback"] = true;
  json["vocab"].push_back({"<0xC3>", -1});
  json["vocab"].push_back({"<0xA9>", -1});
  EXPECT_THAT(load(file(json))->encode("aéü"), ElementsAre(1, 0));  // one unknown part, and ü has no byte tokens
  EXPECT_THAT(load(file(json))->encode("aéa"), ElementsAre(1, 9, 10, 1));
}

TEST(WordLevel, KnowsWholeWords) {
  const Json model = {{"type", "WordLevel"}, {"unk_token", "?"}, {"vocab", {{"?", 0}, {"low", 1}}}};
  EXPECT_THAT(load(file(model))->encode("low"), ElementsAre(1));
  EXPECT_THAT(load(file(model))->encode("lower"), ElementsAre(0));
}

TEST(Model, TypeFromFields) {
  Json json = word_piece();
  json.erase("type");
  EXPECT_THAT(tokens(*load(file(json)), "unaff"), ElementsAre("un", "##aff"));
  json.erase("max_input_chars_per_word");
  EXPECT_THAT(tokens(*load(file(json)), "un"), ElementsAre("un"));
  json = unigram();
  json.erase("type");
  EXPECT_THAT(load(file(json))->encode("ab"), ElementsAre(6));
}

template <typename Change>
void refuses(Json model, const std::string& message, Change change, ErrorCode code = ErrorCode::input) {
  change(model);
  expect_error(code, message, [&] { load(file(model))->encode("xyz"); });
}

TEST(ModelErrors, Refuses) {
  const std::string unknown = "is not in the vocabulary, but the text needs it";
  refuses(word_piece(), unknown, [](Json& j) { j["unk_token"] = "<unk>"; });
  refuses(word_piece(), "model has no vocab", [](Json& j) { j.erase("vocab"); });
  refuses(word_piece(), "model.max_input_chars_per_word must be an integer", [](Json& j) {
    j["max_input_chars_per_word"] = "a";
  });
  const Json words = {{"type", "WordLevel"}, {"unk_token", "?"}, {"vocab", {{"low", 1}}}};
  refuses(words, unknown, [](Json&) {});
  refuses(words, "model has no vocab", [](Json& j) { j["vocab"] = Json::array(); });
  refuses(unigram(), "model.vocab must be an array of [token, score]", [](Json& j) { j["vocab"] = Json::object(); });
  refuses(unigram(), "model.unk_id is 9, the vocabulary has 9 tokens", [](Json& j) { j["unk_id"] = 9; });
  refuses(unigram(), "model has no unk_id, but the text needs it", [](Json& j) { j.erase("unk_id"); });
  refuses(
      Json::object(), "model has the unsupported type \"(none)\"", [](Json&) {}, ErrorCode::usage);
}

TEST(ModelErrors, SurvivesDamage) {
  for (const Json& model : {word_piece(), unigram()}) {
    const std::string whole = file(model).dump();
    for (size_t i = 0; i < whole.size(); ++i) {
      for (const std::string& text : {whole.substr(0, i), whole.substr(0, i) + "9" + whole.substr(i + 1)}) {
        try {
          load(text)->encode("unaffabcdx");
        } catch (const Error& error) {
          EXPECT_TRUE(error.code() == ErrorCode::input || error.code() == ErrorCode::usage) << error.what();
        }
      }
    }
  }
}

}  // namespace
}  // namespace shardpipe::text
