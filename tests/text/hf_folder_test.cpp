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
}

TEST_F(HfFolderTest, Refuses) {
  expect_error(ErrorCode::usage, "has no tokenizer.json; hint: give --tokenizer or --input-ids", [&] {
    Tokenizer::from_folder(folder_.path());
  });
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
  refuses("config.json", R"({"model_type":3})", "model_type must be a string");
  refuses("added_tokens.json", R"({"a":-1})", "gives \"a\" the id -1, must be an integer from 0 to 4294967295");
}

}  // namespace
}  // namespace shardpipe::text
