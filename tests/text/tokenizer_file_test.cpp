#include "text/tokenizer_file.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

TokenizerFile read(const std::string& text) {
  const TemporaryFolder folder;
  return read_tokenizer_file(folder.write("tokenizer.json", text));
}

TEST(TokenizerFile, TakesTheTablesOutOfTheTree) {
  const TokenizerFile file = read(
      R"({"a":[1,-2,0.5,null,true,{"vocab":{"x":1}}],"model":{"merges":[["x","y z"],["é",""]],"vocab":{"x":7,"é":4294967295,"x":8},"n":{"vocab":[]}}})");
  EXPECT_EQ(file.fields.dump(), R"({"a":[1,-2,0.5,null,true,{"vocab":{"x":1}}],"model":{"n":{"vocab":[]}}})");
  EXPECT_EQ(file.vocabulary.size(), 2U);
  EXPECT_EQ(file.vocabulary.find("x"), 8U);  // the later one
  EXPECT_EQ(file.vocabulary.token(4294967295), "é");
  ASSERT_EQ(file.merges.pairs().size(), 2U);
  EXPECT_EQ(file.merges.left(file.merges.pairs()[0]), "x");
  EXPECT_EQ(file.merges.right(file.merges.pairs()[0]), "y z");
  EXPECT_EQ(file.merges.both(file.merges.pairs()[0]), "xy z");
}

TEST(TokenizerFile, ReadsScores) {
  const TokenizerFile file = read(R"({"model":{"vocab":[["a",-1.5],["b",-2],["",3]], "unk_id":0}})");
  EXPECT_FALSE(file.has_vocabulary);
  EXPECT_TRUE(file.has_scores);
  ASSERT_EQ(file.scores.size(), 3U);
  EXPECT_EQ(file.scores.token(1), "b");
  EXPECT_EQ(file.scores.score(0), -1.5);
  EXPECT_EQ(file.scores.score(2), 3.0);
  EXPECT_EQ(file.fields.dump(), R"({"model":{"unk_id":0}})");
}

// The package reads digits as an integer and scales it, so the last bit may differ from the written number.
TEST(TokenizerFile, ReadsScoresAsThePackageDoes) {
  EXPECT_EQ(serde_number("-12.5e-1"), -1.25);
  EXPECT_EQ(serde_number("0.1"), 0.1);
  EXPECT_EQ(serde_number("1E+2"), 100.0);
  EXPECT_EQ(serde_number("123456789012345678901234567890.5"), 12345678901234567890.0 * 1e10);
  EXPECT_EQ(serde_number("1e-320"), 1e-320);
  EXPECT_EQ(serde_number("0e999"), 0.0);
  EXPECT_EQ(
      serde_number("-3.141592653589793238462643383279502884197169399375105820974944592307816406286"),
      -(3141592653589793238.0 / 1e18));
}

TEST(Vocabulary, FindsAmongMany) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.find("x"), std::nullopt);
  for (uint32_t i = 0; i < 5000; ++i) {
    vocabulary.add("t" + std::to_string(i), 3 * (4999 - i));
  }
  vocabulary.index();
  EXPECT_EQ(vocabulary.size(), 5000U);
  for (uint32_t i = 0; i < 5000; ++i) {
    EXPECT_EQ(vocabulary.find("t" + std::to_string(i)), 3 * (4999 - i));
    EXPECT_EQ(vocabulary.token(3 * (4999 - i)), "t" + std::to_string(i));
  }
  EXPECT_EQ(vocabulary.token(1), std::nullopt);
  EXPECT_EQ(vocabulary.token(-1), std::nullopt);
  EXPECT_EQ(vocabulary.token(int64_t{1} << 40), std::nullopt);
}

void refuses(const std::string& message, const std::string& text) {
  expect_error(ErrorCode::input, message, [&] { read(text); });
}

TEST(TokenizerFileErrors, BadJson) {
  refuses("bad JSON in ", "{");
  refuses("bad JSON in ", "");
  refuses("bad JSON in ", "{\"a\":\"\xFF\"}");
  refuses("bad JSON in ", R"({"a":"\ud800"})");
  refuses("bad JSON in ", "{} x");
  refuses("JSON nested deeper than 256 levels", std::string(100000, '['));
  std::string keys = "{";
  for (int i = 0; i < 10002; ++i) {
    keys += fmt::format("\"{}\":0,", i);
  }
  refuses("an object with more than 10000 keys", keys + "\"x\":0}");
  expect_error(ErrorCode::input, "cannot open ", [] { read_tokenizer_file("/nonexistent/tokenizer.json"); });
}

TEST(TokenizerFileErrors, BadVocabulary) {
  refuses("model.vocab gives \"a\" the id 4294967296, above 4294967295", R"({"model":{"vocab":{"a":4294967296}}})");
  for (const char* id : {"-1", "1.5", "\"1\"", "null", "[]", "{}", "1e99", "99999999999999999999"}) {
    refuses(
        "model.vocab gives \"a\" an id that is no integer of at least 0",
        fmt::format(R"({{"model":{{"vocab":{{"a":{}}}}}}})", id));
  }
}

TEST(TokenizerFileErrors, BadScores) {
  const auto scores = [](const char* list) { return fmt::format(R"({{"model":{{"vocab":{}}}}})", list); };
  for (const char* list :
       {R"([["a",1],["b"]])", R"([["a",1],3])", R"([["a",1],[3,"b"]])", R"([["a",1],[]])", R"([["a",1],["b",1,2]])",
        R"([["a",1],["b",null]])", R"([["a",1],{}])"}) {
    refuses("] must be [token, score]", scores(list));
  }
  refuses("bad JSON in ", scores(R"([["a",1e308000]])"));
}

TEST(TokenizerFileErrors, BadMerges) {
  const auto merges = [](const char* list) { return fmt::format(R"({{"model":{{"merges":{}}}}})", list); };
  refuses("model.merges[1] is \"ab\", must be two tokens and one space", merges(R"(["a b", "ab"])"));
  refuses("model.merges[0] is \"a b c\", must be two tokens", merges(R"(["a b c"])"));
  refuses("model.merges[0] has 1 parts, must have 2", merges(R"([["a"]])"));
  refuses("has 3 parts, must have 2", merges(R"([["a","b","c"]])"));
  refuses("model.merges[1] mixes", merges(R"([["a","b"],"a b"])"));
  refuses("model.merges[0] must be \"a b\" or", merges(R"([1])"));
  refuses("model.merges[0] must be \"a b\" or", merges(R"([["a",{}]])"));
  refuses("model.merges[0] must be \"a b\" or", merges(R"([[["a","b"]]])"));
}

}  // namespace
}  // namespace shardpipe::text
