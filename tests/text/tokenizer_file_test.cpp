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

TEST(TokenizerFile, KeepsAVocabularyThatIsAList) {
  const TokenizerFile file = read(R"({"model":{"vocab":[["a",-1.5]]}})");
  EXPECT_FALSE(file.has_vocabulary);
  EXPECT_EQ(file.fields.dump(), R"({"model":{"vocab":[["a",-1.5]]}})");
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
