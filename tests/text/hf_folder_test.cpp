#include "text/hf_folder.h"

#include "text/hf_class.h"
#include "tokenizer_fixture.h"

// What the files mean is compared with transformers in tokenizer_reference; here are the rules one by one.
namespace shardpipe::text {
namespace {

using ::testing::ElementsAre;

class HfFolderTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Tokenizer> load_folder() {
    folder_.write("tokenizer.json", json_.dump());
    return Tokenizer::from_folder(folder_.path());
  }
  void config(const Json& json) { folder_.write("tokenizer_config.json", json.dump()); }

  TemporaryFolder folder_;
  Json json_ = letters();
};

TEST_F(HfFolderTest, NeedsOnlyTokenizerJson) {
  EXPECT_THAT(tokens(*load_folder(), "low"), ElementsAre("low"));
}

TEST_F(HfFolderTest, DoesNotTruncateOrPad) {
  json_["truncation"] = {{"direction", "Right"}, {"max_length", 1}, {"strategy", "LongestFirst"}, {"stride", 0}};
  json_["padding"] = {{"strategy", {{"Fixed", 4}}}, {"direction", "Left"}, {"pad_id", 9}};
  EXPECT_THAT(load_folder()->encode("ls"), ElementsAre(0, 5));
}

TEST_F(HfFolderTest, AddsTheSpecialTokensThatAreMissing) {
  config(
      {{"bos_token", "<s>"},
       {"eos_token", {{"content", "</s>"}}},
       {"x_token", "<x>"},
       {"extra_special_tokens", {"<y>"}}});
  const auto tokenizer = load_folder();
  for (const char* token : {"<s>", "</s>", "<x>", "<y>"}) {
    ASSERT_TRUE(tokenizer->token_to_id(token)) << token;
    EXPECT_TRUE(tokenizer->is_special(*tokenizer->token_to_id(token))) << token;
  }
  EXPECT_EQ(tokenizer->token_to_id("<s>"), 12);
}

TEST_F(HfFolderTest, SplitsSpecialTokensWhenAsked) {
  json_["added_tokens"] = {added("low", {{"special", true}}), added("er")};
  config({{"split_special_tokens", true}});
  EXPECT_THAT(tokens(*load_folder(), "lowser"), ElementsAre("low", "s", "er"));
  json_["model"]["merges"] = Json::array();
  EXPECT_THAT(tokens(*load_folder(), "lower"), ElementsAre("l", "o", "w", "er"));
}

TEST_F(HfFolderTest, Gpt2SetsUpItsOwnPreTokenizer) {
  json_["pre_tokenizer"] = {{"type", "Digits"}, {"individual_digits", true}};
  config({{"tokenizer_class", "GPT2TokenizerFast"}, {"add_prefix_space", true}});
  EXPECT_THAT(tokens(*load_folder(), "low"), ElementsAre("Ġlow"));
}

TEST_F(HfFolderTest, BertSetsUpItself) {
  json_["model"] = {
      {"type", "WordPiece"},
      {"unk_token", "?"},
      {"continuing_subword_prefix", "@@"},
      {"max_input_chars_per_word", 2},
      {"vocab", {{"[PAD]", 0}, {"[UNK]", 1}, {"[CLS]", 2}, {"[SEP]", 3}, {"[MASK]", 4}, {"low", 5}, {"##er", 6}}}};
  config({{"tokenizer_class", "BertTokenizer"}, {"model_max_length", 6}});
  const auto tokenizer = load_folder();
  EXPECT_THAT(tokens(*tokenizer, "LOWER x"), ElementsAre("[CLS]", "low", "##er", "[UNK]", "[SEP]"));
  const std::vector<Encoding> batch =
      tokenizer->encode_batch({{"lower", "low low low"}, {"low", {}}}, tokenizer->batch_options());
  ASSERT_EQ(batch.size(), 2U);
  EXPECT_THAT(batch[0].ids, ElementsAre(2, 5, 3, 5, 5, 3));
  EXPECT_THAT(batch[0].type_ids, ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_THAT(batch[1].ids, ElementsAre(2, 5, 3, 0, 0, 0));
  EXPECT_THAT(batch[1].attention_mask, ElementsAre(1, 1, 1, 0, 0, 0));
}

TEST_F(HfFolderTest, ReadsVocabularyFiles) {
  folder_.write("vocab.txt", "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\n[MASK]\nlow \n##er");
  config({{"tokenizer_class", "BertTokenizer"}});
  EXPECT_THAT(Tokenizer::from_folder(folder_.path())->encode("Lower low"), ElementsAre(2, 5, 6, 5, 3));
  std::filesystem::remove(folder_.path() / "vocab.txt");
  folder_.write("vocab.json", letters()["model"]["vocab"].dump());
  folder_.write("merges.txt", "#version: 0.2\nl o\nlo w\n");
  config({{"tokenizer_class", "GPT2Tokenizer"}});
  EXPECT_THAT(tokens(*Tokenizer::from_folder(folder_.path()), "low er"), ElementsAre("low", "Ġ", "e", "r"));
  const auto refuses = [&](ErrorCode code, const char* message) {
    expect_error(code, message, [&] { Tokenizer::from_folder(folder_.path()); });
  };
  folder_.write("merges.txt", "l o\nlo\n");
  refuses(ErrorCode::input, "merges.txt line 2 is \"lo\", must be two tokens and one space");
  folder_.write("merges.txt", "l o\xFF\n");
  refuses(ErrorCode::input, "merges.txt is no UTF-8");
  folder_.write("merges.txt", "l o\n");
  config({{"tokenizer_class", "GPT2Tokenizer"}, {"add_bos_token", true}});
  refuses(ErrorCode::usage, "a GPT2Tokenizer tokenizer with add_bos_token or add_eos_token cannot be made from");
  config({{"tokenizer_class", "PreTrainedTokenizerFast"}});
  refuses(ErrorCode::usage, "has no tokenizer.json, and a generic tokenizer cannot be made from");
}

TEST_F(HfFolderTest, BatchesNeedAPaddingToken) {
  const auto tokenizer = load_folder();
  expect_error(
      ErrorCode::usage, "the tokenizer has no padding token; hint: set pad_token", [&] { tokenizer->batch_options(); });
}

TEST(HfClass, FollowsConfiguredNameAndModelType) {
  const auto name = [](const char* configured, const char* model_type, bool bytes = true) -> std::string {
    const HfClass* found = find_hf_class(configured, model_type, bytes);
    return found == nullptr ? "" : found->name;
  };
  EXPECT_EQ(name("", ""), "");
  EXPECT_EQ(name("", "gpt2"), "GPT2Tokenizer");
  EXPECT_EQ(name("GPT2TokenizerFast", "llama"), "GPT2Tokenizer");
  EXPECT_EQ(name("PreTrainedTokenizerFast", "gpt2"), "");
  EXPECT_EQ(name("GPT2Tokenizer", "granite"), "");  // the registry's generic class wins
  EXPECT_EQ(name("PreTrainedTokenizerFast", "qwen2"), "Qwen2Tokenizer");
  EXPECT_EQ(name("GPT2Tokenizer", "gpt_neox"), "GPT2Tokenizer");
  EXPECT_EQ(name("LlamaTokenizerFast", "llama"), "");
  EXPECT_EQ(name("LlamaTokenizerFast", "llama", false), "LlamaTokenizer");
  EXPECT_EQ(name("", "distilbert"), "BertTokenizer");
}

TEST_F(HfFolderTest, Refuses) {
  const auto no_file = [&](const char* message) {
    expect_error(ErrorCode::usage, message, [&] { Tokenizer::from_folder(folder_.path()); });
  };
  no_file(
      "has no tokenizer.json, nor vocab.txt, nor vocab.json with merges.txt; hint: give --tokenizer or --input-ids");
  folder_.write("spiece.model", "");
  no_file("has spiece.model, but no tokenizer.json; hint: save it once with transformers");
  const auto refuses = [&](const char* file, const char* content, const char* message) {
    folder_.write(file, content);
    expect_error(ErrorCode::input, message, [&] { load_folder(); });
    std::filesystem::remove(folder_.path() / file);
  };
  refuses("tokenizer_config.json", "[]", "tokenizer_config.json must be an object, is array");
  refuses("tokenizer_config.json", "{", "bad JSON in ");
  refuses("tokenizer_config.json", R"({"split_special_tokens":"no"})", "split_special_tokens must be true or false");
  refuses("tokenizer_config.json", R"({"added_tokens_decoder":{"x":{}}})", "has the key \"x\", must be a token id");
  refuses(
      "tokenizer_config.json", R"({"added_tokens_decoder":{"1":{}}})",
      "added_tokens_decoder.1.content must be a string");
  refuses("tokenizer_config.json", R"({"eos_token":3})", "a special token must be an object, is number");
  refuses("tokenizer_config.json", R"({"tokenizer_class":3})", "tokenizer_class must be a string");
  refuses("tokenizer_config.json", R"({"model_max_length":"a"})", "model_max_length must be a number of at least 0");
  refuses("tokenizer_config.json", R"({"padding_side":"up"})", "padding_side must be \"left\" or \"right\", is \"up\"");
  refuses(
      "tokenizer_config.json", R"({"tokenizer_class":"BertTokenizer","cls_token":null})",
      "has no cls_token, which BertTokenizer puts around a text");
  refuses(
      "tokenizer_config.json", R"({"tokenizer_class":"T5Tokenizer","extra_ids":10001})",
      "extra_ids is 10001, at most 10000 are supported");
  refuses("config.json", R"({"model_type":3})", "model_type must be a string");
  refuses("added_tokens.json", R"({"a":-1})", "gives \"a\" the id -1, must be an integer from 0 to 4294967295");
}

}  // namespace
}  // namespace shardpipe::text
