#include "frontend/hf/generation_config.h"

#include <gmock/gmock.h>

#include "model_folder.h"

namespace shardpipe::hf {
namespace {

using test::expect_error;
using test::ModelFolder;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

GenerationDefaults read(const char* generation, const char* config, std::optional<int64_t> family_eos = 50256) {
  const ModelFolder folder;
  if (generation != nullptr) {
    folder.write("generation_config.json", generation);
  }
  return read_generation_defaults(folder.path(), Config(Json::parse(config), "config.json"), family_eos);
}

TEST(GenerationConfig, EndTokens) {
  EXPECT_THAT(read(R"({"eos_token_id": [3, 4]})", R"({"eos_token_id": 2})").eos_token_ids, ElementsAre(3, 4));
  EXPECT_THAT(read(R"({"eos_token_id": 3})", R"({"eos_token_id": 2})").eos_token_ids, ElementsAre(3));
  EXPECT_THAT(read(R"({"eos_token_id": null})", R"({"eos_token_id": 2})").eos_token_ids, IsEmpty());
  EXPECT_THAT(read("{}", R"({"eos_token_id": 2})").eos_token_ids, ElementsAre(2));
  EXPECT_THAT(read(nullptr, R"({"eos_token_id": [2, 5]})").eos_token_ids, ElementsAre(2, 5));
  EXPECT_THAT(read(nullptr, R"({"eos_token_id": null})").eos_token_ids, IsEmpty());
  EXPECT_THAT(read(nullptr, "{}").eos_token_ids, ElementsAre(50256));
  EXPECT_THAT(read(nullptr, "{}", std::nullopt).eos_token_ids, IsEmpty());
}

TEST(GenerationConfig, DecoderStart) {
  const auto start = [](const char* generation, const char* config) {
    return read(generation, config).decoder_start_token_id;
  };
  EXPECT_EQ(start(R"({"decoder_start_token_id": 3})", R"({"decoder_start_token_id": 2})"), 3);
  EXPECT_EQ(start("{}", R"({"decoder_start_token_id": 2})"), 2);
  EXPECT_EQ(start(R"({"decoder_start_token_id": null})", R"({"decoder_start_token_id": 2})"), std::nullopt);
  EXPECT_EQ(start(nullptr, R"({"bos_token_id": 2})"), std::nullopt);
}

TEST(GenerationConfig, Values) {
  const GenerationDefaults defaults = read(
      R"({"bos_token_id": 1, "max_length": 20, "max_new_tokens": 10, "min_length": 3, "min_new_tokens": 2,
          "do_sample": true, "num_beams": 4, "num_return_sequences": 2, "early_stopping": "never", "length_penalty": 2,
          "no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "temperature": 0.6, "top_k": 50, "top_p": 0.9,
          "min_p": 0.1, "transformers_version": "5.0.0", "use_cache": true})",
      R"({"pad_token_id": 9, "do_sample": false, "max_length": 5})");
  EXPECT_EQ(defaults.bos_token_id, 1);
  EXPECT_EQ(defaults.pad_token_id, 9);
  EXPECT_EQ(defaults.max_length, 20);
  EXPECT_EQ(defaults.max_new_tokens, 10);
  EXPECT_EQ(defaults.min_length, 3);
  EXPECT_EQ(defaults.min_new_tokens, 2);
  EXPECT_EQ(defaults.do_sample, true);
  EXPECT_EQ(defaults.num_beams, 4);
  EXPECT_EQ(defaults.num_return_sequences, 2);
  EXPECT_EQ(defaults.early_stopping, EarlyStopping::never);
  EXPECT_EQ(defaults.length_penalty, 2.0);
  EXPECT_EQ(defaults.no_repeat_ngram_size, 3);
  EXPECT_EQ(defaults.repetition_penalty, 1.2);
  EXPECT_EQ(defaults.temperature, 0.6);
  EXPECT_EQ(defaults.top_k, 50);
  EXPECT_EQ(defaults.top_p, 0.9);
  EXPECT_EQ(defaults.min_p, 0.1);
  EXPECT_THAT(defaults.unsupported, IsEmpty());
  // transformers 5 takes no other generation options from config.json.
  EXPECT_EQ(read(nullptr, R"({"do_sample": true, "max_length": 5})").do_sample, std::nullopt);
  EXPECT_EQ(read(R"({"early_stopping": true})", "{}").early_stopping, EarlyStopping::enough_candidates);
  EXPECT_EQ(read(R"({"early_stopping": false})", "{}").early_stopping, EarlyStopping::heuristic);
}

TEST(GenerationConfig, KeysWithoutAnOption) {
  EXPECT_THAT(
      read(
          R"({"suppress_tokens": [1, 2], "typical_p": 0.5, "num_beam_groups": 1, "guidance_scale": null,
               "epsilon_cutoff": 0.0, "bad_words_ids": []})",
          "{}")
          .unsupported,
      ElementsAre("suppress_tokens = [1,2]", "typical_p = 0.5"));
}

TEST(GenerationConfig, Errors) {
  const auto refused = [](const char* json, const std::vector<std::string>& parts) {
    SCOPED_TRACE(json);
    expect_error(ErrorCode::input, parts, [&] { read(json, "{}"); });
  };
  refused("{", {"bad JSON in ", "generation_config.json"});
  refused("3", {"generation_config.json holds 3; an object is expected"});
  refused(R"({"eos_token_id": "a"})", {"is \"a\"; a token id, a list of token ids or null"});
  refused(R"({"eos_token_id": [1.5]})", {"\"eos_token_id\" in "});
  refused(R"({"temperature": "hot"})", {"\"temperature\" in ", "is \"hot\"; a number is expected"});
  refused(R"({"max_new_tokens": 1.5})", {"is 1.5; an integer is expected"});
  refused(R"({"do_sample": "yes"})", {"is \"yes\"; true or false is expected"});
  refused(R"({"early_stopping": 3})", {"is 3; true, false or \"never\" is expected"});
}

}  // namespace
}  // namespace shardpipe::hf
